"""Archives sent as parts of another one: what the server makes of them is the archive, and little is sent."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from apothic._archive import Packed, pack
from apothic._archive_parts import Upload, upload_parts
from apothic._deploy import manifest_of
from apothic.wire.archive_parts import Part, decode_parts, encode_parts
from apothic.wire.frames import FrameError, encode_frame
from apothic.wire.functions import FunctionSpec

NAMES = ["a.py", "deep/one.py", "deep/er/two.py", "grüße.py", "long_" * 30 + ".py", "zz/last.py"]


def project(root: Path) -> Path:
    """An app with files of all sizes around the blocks of the archive."""
    sizes = [0, 1, 511, 512, 65_535 - 512, 65_535, 200_000]
    for number, name in enumerate(["__init__.py", *NAMES]):
        path = root / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#" * sizes[number % len(sizes)])
    (root / "pyproject.toml").touch()
    (root / "app.py").write_text("import pkg\n")
    return root / "app.py"


def packed(app: Path) -> Packed:
    return pack(app, search_path=[])


def told(found: Packed) -> dict[str, Any]:
    """The manifest of the archive's deployment, as a server answers it."""
    return json.loads(json.dumps(asdict(manifest_of(found.module, "app", [FunctionSpec("f")], found.files))))


def content(found: Packed) -> bytes:
    return found.data if isinstance(found.data, bytes) else found.data.read_bytes()


def made(base: bytes, body: bytes) -> bytes:
    """What a server makes of the parts."""
    _, parts, new = decode_parts(body)
    pieces: list[bytes] = []
    for offset, size in parts:
        if offset is None:
            pieces.append(new[:size])
            new = new[size:]
        else:
            pieces.append(base[offset : offset + size])
    return b"".join(pieces)


def upload(before: Packed, after: Packed) -> Upload:
    found = upload_parts(after, before.sha256, told(before))
    assert found is not None
    assert made(content(before), found.body) == content(after)
    return found


def change(root: Path) -> None:
    (root / "pkg/deep/one.py").write_text("changed = 1\n")


def add(root: Path) -> None:
    (root / "pkg/deep/new.py").write_text("added = 1\n")


def add_folder(root: Path) -> None:
    (root / "pkg/folder").mkdir()
    (root / "pkg/folder/new.py").write_text("added = 1\n")


def remove(root: Path) -> None:
    (root / "pkg/grüße.py").unlink()


def move(root: Path) -> None:
    (root / "pkg/a.py").rename(root / "pkg/moved.py")


def first_and_last(root: Path) -> None:
    (root / "app.py").write_text("import pkg, json\n")
    (root / "pkg/zz/last.py").write_text("")


@pytest.mark.parametrize("edit", [change, add, add_folder, remove, move, first_and_last])
def test_parts_make_the_archive_and_hold_little_else_than_the_change(tmp_path: Path, edit: Callable[[Path], None]):
    app = project(tmp_path)
    before = packed(app)
    edit(tmp_path)
    after = packed(app)

    found = upload(before, after)

    assert found.new_bytes < 30_000 < before.size_bytes
    assert len(found.body) < found.new_bytes + 500
    assert found.new_files == {remove: 0, first_and_last: 2}.get(edit, 1)


def test_parts_make_the_archive_after_any_changes(tmp_path: Path):
    app = project(tmp_path)
    chance = random.Random(7)
    for _ in range(25):
        before = packed(app)
        for _ in range(chance.randint(1, 4)):
            path = tmp_path / "pkg" / chance.choice([*NAMES, "more.py", "deep/more.py", "ö/more.py"])
            if path.exists() and chance.random() < 0.3:
                path.unlink()
            else:
                path.parent.mkdir(exist_ok=True, parents=True)
                path.write_text("x" * chance.choice([0, 5, 511, 513, 65_023, 65_024, 66_000, 131_070]))
        after = packed(app)
        found = upload_parts(after, before.sha256, told(before))
        assert found is None or made(content(before), found.body) == content(after)


def test_an_archive_in_a_file_is_told_as_parts_too(tmp_path: Path):
    app = project(tmp_path)
    (tmp_path / "pkg/huge.py").write_text("#" * 9_000_000)
    before = packed(app)
    change(tmp_path)
    after = packed(app)

    assert isinstance(after.data, Path)
    assert upload(before, after).new_bytes < 30_000


def test_what_shares_nothing_or_is_not_told_is_sent_whole(tmp_path: Path):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("a = 1\n")
    other.write_text("b = 1\n")
    before, after = packed(one), packed(other)
    manifest = told(before)

    assert upload_parts(after, before.sha256, manifest) is None
    for known in ({}, {**manifest, "file_sizes": []}, {**manifest, "file_sizes": None}, {**manifest, "files": {}}):
        assert upload_parts(packed(one), before.sha256, known) is None


GOOD = [Part(None, 2), Part(0, 4), Part(9, 1), Part(None, 1)]


@pytest.mark.parametrize(
    ("head", "new"),
    [
        ({}, b"abc"),
        ({"base": "x"}, b"abc"),
        ({"base": 1, "parts": GOOD}, b"abc"),
        ({"base": "x", "parts": GOOD, "more": 1}, b"abc"),
        ({"base": "x", "parts": []}, b""),
        ({"base": "x", "parts": {"0": 1}}, b""),
        ({"base": "x", "parts": GOOD}, b"ab"),
        ({"base": "x", "parts": GOOD}, b"abcd"),
        ({"base": "x", "parts": [[0, 0]]}, b""),
        ({"base": "x", "parts": [[-1, 1]]}, b""),
        ({"base": "x", "parts": [[True, 1]]}, b""),
        ({"base": "x", "parts": [[0, 1.0]]}, b""),
        ({"base": "x", "parts": [[0, 1, 2]]}, b""),
        ({"base": "x", "parts": ["01"]}, b""),
        ({"base": "x", "parts": [[5, 2], [6, 1]]}, b""),
        ({"base": "x", "parts": [[5, 2], [0, 1]]}, b""),
        ({"base": "x", "parts": [[0, 2**29], [2**29, 1]]}, b""),
        ({"base": "x", "parts": [[2**29 + 1, 1]]}, b""),
        ({"base": "x", "parts": [[n, 1] for n in range(8_001)]}, b""),
    ],
    ids=str,
)
def test_parts_that_make_no_archive_are_refused(head: dict[str, Any], new: bytes):
    assert decode_parts(encode_parts("x", GOOD, b"abc")) == ("x", GOOD, b"abc")
    with pytest.raises(FrameError):
        decode_parts(encode_frame(head, new))
