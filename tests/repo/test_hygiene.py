"""What is committed names no machine, no registry and no home folder, and is small enough to read."""

import re
import tomllib

from .tracked import ROOT, tracked_files

# Written in pieces so that this file does not hold what it looks for.
FORBIDDEN = re.compile(
    "|".join(
        (r"(?<![\w.])/wor" + r"k/", r"(?<![\w.])/roo" + r"t/", "/Use" + "rs/", r"py" + r"pi\.org", "python" + "hosted")
    )
)
GENERATED = {"uv.lock"}
LINES_MAX = 400


def test_no_file_names_a_machine_path_or_a_registry():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked_files()
        if path.name not in GENERATED
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]

    assert "\n".join(found) == ""


def test_every_text_file_ends_with_one_newline_and_has_no_trailing_blanks():
    texts = {
        path: path.read_bytes() for path in tracked_files() if path.suffix in {".py", ".md", ".sql", ".toml", ".json"}
    }
    bad_end = [
        str(path.relative_to(ROOT)) for path, text in texts.items() if text and not re.search(rb"[^\n]\n\Z", text)
    ]
    trailing = [str(path.relative_to(ROOT)) for path, text in texts.items() if re.search(rb"[ \t]\n", text)]

    assert (bad_end, trailing) == ([], [])


def test_modules_are_short_enough_for_one_reading():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in tracked_files()
        if path.suffix == ".py" and "src" in path.parts
    }

    assert {path: length for path, length in lengths.items() if length >= LINES_MAX} == {}


def test_modules_are_named_after_what_they_hold():
    vague = {"utils", "util", "common", "helpers", "models", "types", "misc"}

    assert [
        str(path.relative_to(ROOT)) for path in tracked_files() if path.suffix == ".py" and path.stem in vague
    ] == []


def test_the_three_packages_have_one_version():
    manifests = [
        tomllib.loads((ROOT / f"packages/{name}/pyproject.toml").read_text()) for name in ("client", "worker", "server")
    ]
    versions = {manifest["project"]["version"] for manifest in manifests}
    pins = {one for manifest in manifests for one in manifest["project"]["dependencies"] if one.startswith("apothic-")}

    assert len(versions) == 1
    assert {pin.partition("==")[2] for pin in pins} == versions
