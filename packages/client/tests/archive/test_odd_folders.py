"""Folders that are too full, and files that are no files, cannot be read, or change while they are packed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import apothic._archive
from apothic._archive import pack, write_archive
from apothic._sources import find_sources
from apothic.errors import ConflictError, InvalidRequestError, TooLargeError
from apothic_server.testing.guarantees import guarantee

SOURCE = Path(apothic._archive.__file__).parents[1]

_watching: list[list[str]] = []
_hook: list[bool] = []


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """Collect the paths of all files that this process opens meanwhile."""
    if not _hook:
        sys.addaudithook(_note)
        _hook.append(True)
    found: list[str] = []
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.remove(found)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        for found in _watching:
            found.append(str(arguments[0]))


def project(root: Path, **files: str) -> Path:
    """Make a project whose app imports the package `pkg`; return the app's file."""
    for name, text in {"pyproject.toml": "", "app.py": "import pkg, near\n", "pkg/__init__.py": ""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    return root / "app.py"


@guarantee("G15.1", "limits_table")
def test_a_hundred_thousand_files_are_refused_by_their_number_without_being_read(tmp_path: Path):
    app = project(tmp_path)
    many = tmp_path / "many"
    many.mkdir()
    for number in range(1_000):
        (many / f"m{number}.py").touch()
    for number in range(100):
        (tmp_path / "pkg" / f"part{number}").symlink_to(many)

    with (
        opened_files() as opened,
        pytest.raises(TooLargeError, match=r"more than the 50,000 files and folders") as caught,
    ):
        pack(app, search_path=[])

    assert "pkg alone has more than 49," in str(caught.value)
    assert not [path for path in opened if "/pkg/" in path or "/many/" in path]


@guarantee("G15.1", "limits_table")
def test_three_gibibytes_are_refused_by_their_size_without_being_read(tmp_path: Path):
    app = project(tmp_path)
    for number in range(7):
        with (tmp_path / "pkg" / f"part{number}.py").open("wb") as file:
            file.truncate(449 * 2**20)

    with opened_files() as opened, pytest.raises(TooLargeError, match=r"pkg/part\d.py \(470810624 bytes\)"):
        pack(app, search_path=[])

    assert not [path for path in opened if "/pkg/" in path]


def _gone(file: Path) -> None:
    file.unlink()


def _folder_gone(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.touch()


def _link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _socket(file: Path) -> None:
    file.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(file))


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _replaced(file: Path) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(file.read_bytes())
    status = file.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(file)


@guarantee("G19.4", "archive_corpus")
@pytest.mark.parametrize("becomes", [_gone, _folder_gone, _link, _pipe, _socket, _folder, _replaced])
def test_a_file_that_is_another_one_when_it_is_packed_is_refused(short_path: Path, becomes: Callable[[Path], None]):
    sources = find_sources(project(short_path), search_path=[])
    becomes(short_path / "pkg" / "__init__.py")

    with pytest.raises(ConflictError, match=r"pkg/__init__\.py changed while it was packed: deploy again") as caught:
        write_archive(sources)

    assert caught.value.code == "file_changed"


@pytest.mark.parametrize("size", [2**20 + 10, 2**20 - 10, 3 * 2**20], ids=["grows", "shrinks", "grows much"])
def test_a_file_that_changes_between_two_reads_is_refused(tmp_path: Path, size: int):
    app = project(tmp_path, near="#" * (2**20 + 5))
    sources = find_sources(app, search_path=[])
    (source,) = (one for one in sources.files if one.archive_path == "near.py")
    reading = apothic._archive._content(source)
    next(reading)
    os.truncate(tmp_path / "near.py", size)

    with pytest.raises(ConflictError, match=r"near\.py changed"):
        list(reading)


def test_pipes_sockets_and_links_to_nothing_are_left_out_with_a_note(short_path: Path):
    app = project(short_path)
    os.mkfifo(short_path / "near.py")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(short_path / "pkg" / "door.py"))
    (short_path / "pkg" / "lost.py").symlink_to("nowhere.py")

    found = pack(app, search_path=[])

    assert [file.path for file in found.files] == ["app.py", "pkg/__init__.py"]
    assert {
        "near.py is no regular file, so it is not uploaded",
        "pkg/door.py is no regular file, so it is not uploaded",
        "pkg/lost.py is a link to nothing, so it is not uploaded",
    } <= set(found.notes)


def test_an_app_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "app.py")

    with pytest.raises(InvalidRequestError, match=r"app\.py is no regular file"):
        pack(tmp_path / "app.py", search_path=[])


UNREADABLE = """
import os, sys
sys.path.append(sys.argv[1])
from pathlib import Path
from apothic._archive import pack
from apothic.errors import ApothicError
app, locked = map(Path, sys.argv[2:])
pack(app, search_path=[])
locked.chmod(0)
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    pack(app, search_path=[])
except ApothicError as error:
    print(error.code, error)
"""


@pytest.mark.parametrize("locked", ["app.py", "near.py", "pkg/__init__.py"])
def test_a_file_that_cannot_be_read_is_named(short_path: Path, locked: str):
    app = project(short_path, near="")
    short_path.chmod(0o755)

    command = [sys.executable, "-c", UNREADABLE, SOURCE, app, short_path / locked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == f"file_unreadable Cannot read {short_path / locked}: Permission denied.\n"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An own folder that other users reach, with a path short enough for the address of a socket."""
    with tempfile.TemporaryDirectory(prefix="apothic-") as folder:
        yield Path(folder).resolve()
