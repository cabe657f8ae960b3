"""Where the files that images add lie in an app's archive, and where functions find them.

What functions find below /app lies in the archive as it is found, because the archive is what is shown there. What they
find elsewhere lies below `local-files/N`, with the whole path, one N for each set of such files; the image says which
folders and files of it are mounted where. No module of an app can have that name.
"""

from __future__ import annotations

import ast
import os
import posixpath
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from apothic._local_files import LocalFiles
from apothic._packages import imports_of
from apothic._sources import Mounts, Source, Sources, foreign, stamp_of
from apothic._upload_rules import IGNORE_FILES, UploadRules
from apothic.errors import ConflictError, InvalidRequestError, TooLargeError
from apothic.wire.images import is_mount_place
from apothic.wire.limits import ARCHIVE_ENTRIES_MAX, FILE_PATH_MAX

_APP = "/app"
_ELSEWHERE = "local-files"
SHOWN_MAX = 5
"""Hidden files of an added folder that are named when they are left out."""


@dataclass(frozen=True)
class AddedFiles:
    """What the image of one function adds.

    Attributes:
        workdir: Of the image.
        files: In the order in which they were added.
    """

    workdir: str
    files: tuple[LocalFiles, ...]


@dataclass
class _Placing:
    found: dict[str, Source]
    entries_max: int
    imports: set[str] = field(default_factory=set[str])
    notes: dict[str, None] = field(default_factory=dict[str, None])
    elsewhere: dict[tuple[tuple[str, Path], ...], int] = field(default_factory=dict[tuple[tuple[str, Path], ...], int])
    listed: dict[tuple[Path, bool], tuple[tuple[str, Source], ...]] = field(
        default_factory=dict[tuple[Path, bool], tuple[tuple[str, Source], ...]]
    )


def with_added(sources: Sources, added: Mapping[str, AddedFiles], *, entries_max: int = ARCHIVE_ENTRIES_MAX) -> Sources:
    """Return the app's files with those that the images of functions add; `added` is by the function's name.

    Raises:
        InvalidRequestError: A file may not be uploaded (`secret_refused`, `link_outside`), or is none.
        ConflictError: Two files would lie at one place (`place_taken`).
        TooLargeError: There are more files than an archive may hold.
    """
    placing = _Placing({source.archive_path: source for source in sources.files}, entries_max)
    mounts = {name: _place_all(placing, one) for name, one in added.items() if one.files}
    if not mounts:
        return sources
    _refuse_files_as_folders(placing.found)
    files = tuple(placing.found[path] for path in sorted(placing.found))
    own = {path.partition("/")[0].removesuffix(".py") for path in placing.found}
    imports = foreign((*sources.imports, *placing.imports), own)
    notes = (*sources.notes, *placing.notes)
    return replace(sources, files=files, imports=imports, mounts=mounts, notes=notes)


def _place_all(placing: _Placing, added: AddedFiles) -> Mounts:
    outside: dict[str, LocalFiles] = {}
    for one in added.files:
        base = _APP if one.is_module else posixpath.join(_APP, added.workdir)
        place = posixpath.normpath(posixpath.join(base, one.remote))
        if place == _APP or place.startswith(f"{_APP}/"):
            _place(placing, one, place[len(_APP) + 1 :])
        elif not is_mount_place(place):
            raise InvalidRequestError(f"{one.path}: nothing can be added at {place}; choose a folder below it.")
        elif outside.setdefault(place, one) != one:
            raise _taken(place, outside[place].path, one.path)
    if not outside:
        return {}
    key = tuple(sorted((place, one.path) for place, one in outside.items()))
    root = f"{_ELSEWHERE}/{placing.elsewhere.setdefault(key, len(placing.elsewhere) + 1)}"
    for place, one in outside.items():
        _place(placing, one, f"{root}{place}")
    folders = tuple(f"{place}/" for place, one in outside.items() if one.path.is_dir())
    return {place: f"{root}{place}" for place in outside if not place.startswith(folders)}


def _place(placing: _Placing, one: LocalFiles, place: str) -> None:
    key = (one.path, one.is_module)
    if key not in placing.listed:
        hidden: list[str] = []
        placing.listed[key] = tuple(_files_of(one, placing.entries_max, hidden))
        if hidden:
            placing.notes[_left_out(one.path, hidden)] = None
        if one.is_module:
            for _, source in placing.listed[key]:
                placing.imports |= _imports(source.file)
    if not placing.listed[key]:
        raise InvalidRequestError(f"{one.path} has no files that can be added.")
    for below, source in placing.listed[key]:
        path = posixpath.join(place, below) if below else place
        _check_path(path, source.file)
        known = placing.found.setdefault(path, replace(source, archive_path=path))
        if known.file != source.file:
            raise _taken(path, known.file, source.file)
    if len(placing.found) > placing.entries_max:
        raise _too_many(one.path, placing.entries_max)


def _files_of(one: LocalFiles, count_max: int, hidden: list[str]) -> Iterator[tuple[str, Source]]:
    """Yield the files of an addition with their paths below it; that of a single file is empty.

    Hidden files are not yielded; their paths are put into `hidden`.
    """
    if one.path.is_file():
        UploadRules(one.path.parent).refuse_secret(one.path, str(one.path))
        yield "", _source(one.path, one.path)
        return
    rules = UploadRules(one.path)
    count = 0
    for file in _walk(rules, one.path, one.path, (), hidden):
        if one.is_module and file.suffix != ".py":
            continue
        count += 1
        if count > count_max:
            raise _too_many(one.path, count_max)
        real = file.resolve()
        below = file.relative_to(one.path).as_posix()
        rules.refuse_secret(file, below)
        rules.refuse_secret(real, below)
        yield below, _source(real, file)


def _walk(rules: UploadRules, root: Path, folder: Path, above: tuple[Path, ...], hidden: list[str]) -> Iterator[Path]:
    """Yield the files below a folder, without hidden and ignored ones and those of installed packages."""
    real = folder.resolve()
    for entry in sorted(os.scandir(folder), key=lambda found: found.name):
        path = Path(entry.path)
        if rules.is_ignored(path, is_folder=entry.is_dir()):
            continue
        if entry.name.startswith("."):
            # A hidden folder belongs to a tool, such as .git; a hidden file may be one that the function reads.
            if not entry.is_dir() and entry.name not in IGNORE_FILES:
                hidden.append(path.relative_to(root).as_posix())
            continue
        if entry.is_symlink():
            _check_link(root, path)
        if entry.is_dir():
            if path.resolve() not in (*above, real) and rules.may_enter(path):
                yield from _walk(rules, root, path, (*above, real), hidden)
        else:
            yield path


def _left_out(path: Path, hidden: list[str]) -> str:
    shown = ", ".join(hidden[:SHOWN_MAX])
    more = f" and {len(hidden) - SHOWN_MAX:,} more" if len(hidden) > SHOWN_MAX else ""
    return f"hidden files of {path} are not uploaded: {shown}{more}"


def _check_link(root: Path, path: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        target = None
    if target is None or (target != root and root not in target.parents):
        raise InvalidRequestError(
            f"{path} is a link that leaves {root} or leads nowhere, so it is not uploaded: remove it, put the file "
            "itself there, or name it in an .apothicignore of that folder.",
            code="link_outside",
        )


def _source(real: Path, shown: Path) -> Source:
    if not real.is_file():
        raise InvalidRequestError(f"{shown} is no regular file, so it cannot be uploaded.")
    return Source("", real, stamp_of(real.stat()))


def _imports(file: Path) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return imports_of(ast.parse(file.read_bytes()))
        except (SyntaxError, ValueError, RecursionError):
            return set()


def _check_path(path: str, file: Path) -> None:
    if not path or not path.isprintable() or len(path.encode()) > FILE_PATH_MAX:
        raise InvalidRequestError(
            f"{str(file)!r} cannot be uploaded as {path!r}: a path below /app has printable characters only, and 1 to "
            f"{FILE_PATH_MAX:,} bytes."
        )


def _refuse_files_as_folders(found: Mapping[str, Source]) -> None:
    for path, source in found.items():
        parent = posixpath.dirname(path)
        while parent:
            if parent in found:
                raise _taken(parent, found[parent].file, source.file)
            parent = posixpath.dirname(parent)


def _taken(place: str, one: Path, other: Path) -> ConflictError:
    return ConflictError(f"{one} and {other} would both lie at {place}: choose another place.", code="place_taken")


def _too_many(path: Path, entries_max: int) -> TooLargeError:
    return TooLargeError(
        f"{path}: an app may have at most {entries_max:,} files and folders. Name what is not needed in an "
        ".apothicignore of that folder, or add less."
    )
