"""Which local files belong to an app: its own file and what it imports from under its root.

Nothing is imported or executed: imports are read from the syntax tree and looked up the way Python would look them up.

The *root* bounds what may be read: the nearest folder above the app's file with a `pyproject.toml` or `.git`, else the
app's own folder; a root as wide as the home folder leaves only the app's file. A *base* is a folder that top-level
names are looked up in; a file's place in the archive is its path below its base, so that every import which works
beside the file works in the archive too.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apothic._packages import imports_of
from apothic._upload_rules import UploadRules
from apothic.errors import InvalidRequestError, TooLargeError
from apothic.wire.limits import ARCHIVE_ENTRIES_MAX, ARCHIVE_PACKED_MAX

Mounts = dict[str, str]
"""Paths in the archive by the absolute path at which a function finds them."""

_OWN_PACKAGES = frozenset({"apothic"})
_ROOT_MARKS = ("pyproject.toml", ".git")


@dataclass(frozen=True)
class FileStamp:
    """What tells whether a file changed between two looks at it."""

    inode: int
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True)
class Source:
    """One file that goes into the archive.

    Attributes:
        archive_path: Where it lies in the archive, with `/` between names.
        file: Where it is read from, links resolved.
        stamp: Its state when its imports were read.
    """

    archive_path: str
    file: Path
    stamp: FileStamp


@dataclass(frozen=True)
class Sources:
    """Everything an app uploads.

    Attributes:
        module: Dotted name under which a runner imports the app's file.
        files: Sorted by `archive_path`.
        notes: Sentences for the person who deploys: what was left out, and why.
        imports: Dotted names that these files import from neither themselves nor the standard library, sorted.
        mounts: Of the functions whose images add files, by name.
    """

    module: str
    files: tuple[Source, ...]
    notes: tuple[str, ...]
    imports: tuple[str, ...] = ()
    mounts: dict[str, Mounts] = field(default_factory=dict[str, Mounts])


@dataclass(frozen=True)
class _Base:
    """A folder that top-level names are looked up in; `shadows` when its modules win over the standard library."""

    folder: Path
    shadows: bool = False


@dataclass(frozen=True)
class _Module:
    """A file on its way into the archive and the package that its relative imports start from."""

    archive_path: str
    file: Path
    package: str


@dataclass
class _Search:
    """What was found so far."""

    bases: Sequence[_Base]
    rules: UploadRules
    found: dict[str, Source] = field(default_factory=dict[str, Source])
    waiting: list[_Module] = field(default_factory=list[_Module])
    seen: set[str] = field(default_factory=set[str])
    folders: set[str] = field(default_factory=set[str])
    imports: set[str] = field(default_factory=set[str])
    size_bytes: int = 0


def find_sources(app_file: Path, *, search_path: Sequence[str] | None = None) -> Sources:
    """Return the files that `app_file` needs, without importing any of them.

    Names and sizes of a package are looked at before its files are read, so what exceeds a limit is refused early.

    Args:
        app_file: The file that defines the app.
        search_path: Folders beside the usual ones that names are looked up in when they lie under the root, by
            default `sys.path`.

    Raises:
        InvalidRequestError: The file is missing (`file_missing`), unreadable (`file_unreadable`), no Python file
            (`invalid`), called like a module that exists (`name_taken`), does not parse (`syntax_error`), or a file
            that looks like a secret would be uploaded (`secret_refused`).
        TooLargeError: More files than an archive may hold, or one that is larger than an archive may be.
    """
    try:
        return _find(_checked(app_file), sys.path if search_path is None else search_path)
    except OSError as error:
        raise InvalidRequestError(f"Cannot read {error.filename}: {error.strerror}.", code="file_unreadable") from error


def stamp_of(status: os.stat_result) -> FileStamp:
    """Return the stamp of one look at a file."""
    return FileStamp(status.st_ino, status.st_size, status.st_mtime_ns)


def _find(app_file: Path, search_path: Sequence[str]) -> Sources:
    tree, stamp = _parse_app(app_file)
    marked = _marked_root(app_file.parent)
    root = marked or app_file.parent
    rules = UploadRules(root)
    rules.refuse_secret(app_file, app_file.name)
    levels = max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)
    if _is_too_wide(root):
        return _only_app_file(app_file, stamp, root, tree)
    depth = max(levels, _package_depth(app_file, root) if marked else 0)
    package = app_file.parts[-1 - depth : -1]
    archive_path = "/".join((*package, _importable(app_file.stem) + ".py"))
    _refuse_taken_name(app_file, archive_path)
    search = _Search(_bases(app_file, root, depth, search_path), rules)
    search.found[archive_path] = Source(archive_path, app_file, stamp)
    search.imports |= imports_of(tree)
    names = _dotted_imports(tree, ".".join(package))
    for name in [".".join(package), *names] if package else names:
        _add_name(search, name)
    _follow(search)
    files = tuple(search.found[path] for path in sorted(search.found))
    own = {_top(path.replace("/", ".")) for path in search.found}
    return Sources(archive_path[: -len(".py")].replace("/", "."), files, rules.notes, foreign(search.imports, own))


def _checked(app_file: Path) -> Path:
    if app_file.suffix != ".py":
        raise InvalidRequestError(f"{app_file} is not a Python file: give the .py file that defines the app.")
    if not app_file.is_file():
        what = f"{app_file} is no regular file." if app_file.exists() else f"There is no file {app_file}."
        raise InvalidRequestError(what, code="file_missing")
    return app_file.resolve()


def _parse_app(app_file: Path) -> tuple[ast.Module, FileStamp]:
    stamp = _readable_stamp(app_file)
    try:
        return _parse(app_file), stamp
    except SyntaxError as error:
        line = f"\n    {error.text.strip()}" if error.text else ""
        message = f"{app_file}:{error.lineno or 1}: {error.msg}{line}"
    except (ValueError, RecursionError) as error:
        message = f"{app_file}:1: {error}"
    raise InvalidRequestError(message, code="syntax_error")


def _parse(file: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(file.read_bytes(), str(file))


def _readable_stamp(file: Path) -> FileStamp:
    stamp = stamp_of(file.stat())
    if stamp.size_bytes > ARCHIVE_PACKED_MAX:
        raise TooLargeError(f"{file} has {stamp.size_bytes} bytes; an archive may have {ARCHIVE_PACKED_MAX}.")
    return stamp


def _marked_root(folder: Path) -> Path | None:
    for candidate in (folder, *folder.parents):
        if any((candidate / mark).exists() for mark in _ROOT_MARKS):
            return candidate
    return None


def _is_too_wide(root: Path) -> bool:
    """Whether `root` is the home folder or above it, `/` included."""
    if root == root.parent:
        return True
    homes = {os.environ.get("HOME", ""), os.path.expanduser("~")}  # noqa: PTH111 - Path.expanduser raises without one
    resolved = [Path(home).resolve() for home in homes if Path(home).is_absolute()]
    return any(home == root or root in home.parents for home in resolved)


def _only_app_file(app_file: Path, stamp: FileStamp, root: Path, tree: ast.Module) -> Sources:
    name = _importable(app_file.stem)
    _refuse_taken_name(app_file, f"{name}.py")
    notes: tuple[str, ...] = ()
    tops = {_top(name) for name in _dotted_imports(tree, "")}
    beside = sorted(top for top in tops if _lies_in(app_file.parent, top))
    if beside:
        why = f"only the app's file is uploaded, because its root would be {root}"
        notes = (f"{why}; give the app a folder of its own with a pyproject.toml to upload {', '.join(beside)} too",)
    imports = foreign(imports_of(tree), {name, *beside})
    return Sources(name, (Source(f"{name}.py", app_file, stamp),), notes, imports)


def _lies_in(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def _package_depth(app_file: Path, root: Path) -> int:
    """How many folders above the file, inside the root, are packages."""
    depth = 0
    for folder in app_file.parents:
        if folder == root or not (folder / "__init__.py").is_file():
            return depth
        depth += 1
    return depth


def _importable(stem: str) -> str:
    """Return `stem` as a module name; scripts may be called `my-app.py`, modules may not."""
    name = re.sub(r"\W", "_", stem)
    return name if name.isidentifier() else f"_{name}"


def _refuse_taken_name(app_file: Path, archive_path: str) -> None:
    top = archive_path.partition("/")[0].removesuffix(".py")
    advice = "define the app in another file and import it there" if top == "__main__" else "rename it"
    if top in sys.stdlib_module_names or top in _OWN_PACKAGES or top == "__main__":
        raise InvalidRequestError(
            f"{app_file} would be imported as {top!r}, a name that Python or the SDK has already: {advice}.",
            code="name_taken",
        )


def _bases(app_file: Path, root: Path, depth: int, search_path: Iterable[str]) -> list[_Base]:
    own = app_file.parent
    first = _Base(own, shadows=True) if depth == 0 else _Base(app_file.parents[depth])
    extra = [Path(entry).resolve() for entry in search_path if entry and Path(entry).is_absolute()]
    folders = [root / "src", root, *(entry for entry in extra if root in entry.parents), own]
    return [first, *(_Base(folder) for folder in dict.fromkeys(folders) if folder != first.folder)]


def _follow(search: _Search) -> None:
    """Look at the imports of every file found, until no new one turns up."""
    while search.waiting:
        module = search.waiting.pop()
        try:
            tree = _parse(module.file)
        except (SyntaxError, ValueError, RecursionError):
            search.rules.note(f"{module.archive_path} does not parse; what it imports is not uploaded")
            continue
        search.imports |= imports_of(tree)
        for name in _dotted_imports(tree, module.package):
            _add_name(search, name)


def _dotted_imports(tree: ast.AST, package: str) -> list[str]:
    """Return every dotted name that the tree may import, sorted; `package` anchors relative imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            anchor = _anchor(node, package)
            if anchor:
                names.add(anchor)
                names.update(f"{anchor}.{alias.name}" for alias in node.names if alias.name != "*")
    return sorted(names)


def _anchor(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    if node.level > len(parts):
        return ""
    kept = parts[: len(parts) - node.level + 1]
    return ".".join([*kept, node.module] if node.module else kept)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _add_name(search: _Search, name: str) -> None:
    """Add the files of one dotted name: a module, or the whole outermost package on the way to it."""
    parts = name.split(".")
    if name in search.seen or parts[0] in _OWN_PACKAGES:
        return
    search.seen.add(name)
    folders = [base.folder for base in search.bases if base.shadows or parts[0] not in sys.stdlib_module_names]
    for depth, part in enumerate(parts):
        prefix = "/".join(parts[: depth + 1])
        portions: list[Path] = []
        for folder in folders:
            if (folder / part / "__init__.py").is_file() and _add_package(search, folder / part, prefix):
                return
            if os.path.lexists(folder / f"{part}.py") and _add_file(search, folder / f"{part}.py", f"{prefix}.py"):
                return
            if (folder / part).is_dir():
                portions.append(folder / part)
        folders = portions


def _add_package(search: _Search, folder: Path, prefix: str) -> bool:
    """Add all modules of a package; False when none of them may be uploaded."""
    added = False
    for file in _python_files(search.rules, folder, ()):
        added |= _add_file(search, file, f"{prefix}/{file.relative_to(folder).as_posix()}")
    return added


def _python_files(rules: UploadRules, folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above or not rules.may_enter(folder):
        return
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - a path for each is not cheap
        if os.path.isdir(folder / name):  # noqa: PTH112
            yield from _python_files(rules, folder / name, (*above, real))
        elif name.endswith(".py"):
            yield folder / name


def _too_large(search: _Search) -> TooLargeError:
    found = search.found.values()
    biggest = max(found, key=lambda source: source.stamp.size_bytes)
    return TooLargeError(
        f"The app's files have more than the {ARCHIVE_PACKED_MAX} bytes that an archive may have; the biggest of the "
        f"{len(found)} seen so far is {biggest.archive_path} ({biggest.stamp.size_bytes} bytes). "
        "Import less, or name what is not needed in .apothicignore."
    )


def _too_many(search: _Search) -> TooLargeError:
    tops = Counter(path.partition("/")[0] for path in search.found)
    fullest, count = max(tops.items(), key=lambda item: item[1])
    return TooLargeError(
        f"The app has more than the {ARCHIVE_ENTRIES_MAX:,} files and folders that an archive may have; "
        f"{fullest} alone has more than {count - 1:,} files. "
        "Import less, or name what is not needed in .apothicignore."
    )


def _add_file(search: _Search, file: Path, archive_path: str) -> bool:
    """Add one file and queue its imports; False when the rules leave it out."""
    if archive_path in search.found:
        return True
    if not archive_path.isprintable():
        search.rules.note(f"{archive_path!r} has a name that cannot be uploaded")
        return False
    real = search.rules.resolve(file)
    if real is None:
        return False
    stamp = _readable_stamp(real)
    search.found[archive_path] = Source(archive_path, real, stamp)
    search.size_bytes += stamp.size_bytes
    folder = archive_path.rpartition("/")[0]
    _add_folders(search, folder)
    if search.size_bytes > ARCHIVE_PACKED_MAX:
        raise _too_large(search)
    if len(search.found) + len(search.folders) > ARCHIVE_ENTRIES_MAX:
        raise _too_many(search)
    search.waiting.append(_Module(archive_path, real, folder.replace("/", ".")))
    return True


def _add_folders(search: _Search, folder: str) -> None:
    while folder and folder not in search.folders:
        search.folders.add(folder)
        folder = folder.rpartition("/")[0]


def foreign(names: Iterable[str], own: set[str]) -> tuple[str, ...]:
    """Return what neither the archive nor the standard library will have."""
    known = own | _OWN_PACKAGES | sys.stdlib_module_names
    return tuple(sorted(name for name in names if _top(name) not in known))
