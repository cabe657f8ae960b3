"""Which packages each part of the client may import, read from the code: also inside functions."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "packages/client/src/apothic"

CASES = [
    ("wire", set(), ("apothic.wire",)),
    (
        "_runtime",
        set(),
        (
            "apothic.wire",
            "apothic._runtime",
            "apothic._serialize",
            "apothic._batches",
            "apothic._large",
            "apothic._loading",
        ),
    ),
    ("_serialize.py", {"cloudpickle"}, ("apothic.wire",)),
    ("_large.py", set(), ("apothic.wire", "apothic._serialize")),
    ("_loading.py", set(), ("apothic.wire",)),
    ("cli", {"click", "rich", "pathspec", "tomli"}, ("apothic",)),
]


@pytest.mark.parametrize(("part", "libraries", "own"), CASES, ids=[case[0] for case in CASES])
def test_a_part_of_the_client_imports_only_what_it_may(part: str, libraries: set[str], own: tuple[str, ...]):
    allowed = sys.stdlib_module_names | libraries

    found = [
        f"{path.relative_to(CLIENT)}:{line}: {name}"
        for path in _files(part)
        for line, name in _imports(path)
        if name.partition(".")[0] not in allowed and not name.startswith(own) and not _is_version_fallback(name)
    ]

    assert "\n".join(found) == ""


def test_the_sdk_needs_no_library_of_the_command_line():
    parts = [path for path in CLIENT.glob("*.py") if path.name != "__main__.py"]
    allowed = sys.stdlib_module_names | {"apothic", "cloudpickle", "pathspec", "tomli"}
    names = [name for path in parts for _, name in _imports(path)]

    assert [name for name in names if name.partition(".")[0] not in allowed or _is_cli(name)] == []


def test_code_that_ships_never_imports_test_support():
    sources = sorted(ROOT.glob("packages/*/src"))
    files = [(source, path) for source in sources for path in source.rglob("*.py") if "testing" not in path.parts]

    found = [
        f"{path.relative_to(source)}:{line}: {name}"
        for source, path in files
        for line, name in _imports(path, source)
        if name.startswith("apothic") and "testing" in name.split(".")
    ]

    assert "\n".join(found) == ""


def _files(part: str) -> list[Path]:
    path = CLIENT / part
    found = [path] if path.suffix else sorted(path.rglob("*.py"))
    assert found and all(one.is_file() for one in found)
    return found


def _is_cli(name: str) -> bool:
    return name == "apothic.cli" or name.startswith("apothic.cli.")


def _imports(path: Path, source: Path = CLIENT.parent) -> Iterator[tuple[int, str]]:
    package = path.relative_to(source).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            is_package = (source / Path(*origin.split("."))).is_dir()
            names = [f"{origin}.{alias.name}" for alias in node.names] if is_package else [origin]
            yield from ((node.lineno, name) for name in names)


def _is_version_fallback(name: str) -> bool:
    """`tomllib` came with Python 3.11; on 3.10 it is a library of another name."""
    return name == "tomllib"
