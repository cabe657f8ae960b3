"""Files of this machine that an image adds to functions: named and checked where they are written."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apothic._ranges import wrong
from apothic.errors import InvalidRequestError
from apothic.wire.images import WORKDIR_RULE, is_workdir


@dataclass(frozen=True)
class LocalFiles:
    """One file, one folder, or the source of one module.

    Attributes:
        path: Absolute path here.
        remote: Where functions find it: absolute, or below the folder in which calls begin.
        is_module: It is put where functions import from, and of a folder only Python files count.
    """

    path: Path
    remote: str
    is_module: bool = False


def local_file(path: Any, remote: Any) -> LocalFiles:
    """Return a file and its place; a `remote` that ends in a slash is a folder for it.

    Raises:
        InvalidRequestError: There is no such file, or no such place.
    """
    found = _existing(path)
    if not found.is_file():
        raise wrong("local_path", str(path), "an existing file; folders are added with add_local_dir")
    place = found.name if remote is None else _place(remote)
    return LocalFiles(found, f"{place}{found.name}" if place.endswith("/") else place)


def local_folder(path: Any, remote: Any) -> LocalFiles:
    """Return a folder and the place of what it holds.

    Raises:
        InvalidRequestError: There is no such folder, or no such place.
    """
    found = _existing(path)
    if not found.is_dir():
        raise wrong("local_path", str(path), "an existing folder; files are added with add_local_file")
    return LocalFiles(found, found.name if remote is None else _place(remote))


def local_modules(names: tuple[Any, ...]) -> list[LocalFiles]:
    """Return the files or folders of modules, found as `import` finds them; nothing is imported.

    Raises:
        InvalidRequestError: A name is none of a module, or it has no source here.
    """
    if not names:
        raise InvalidRequestError("add_local_python_source: name at least one module.")
    return [found for name in names for found in _module(name)]


def _module(name: Any) -> list[LocalFiles]:
    if not isinstance(name, str) or not name.isidentifier():
        raise wrong("add_local_python_source", name, "the name of a module, or of an outermost package without dots")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations:
        return [LocalFiles(Path(folder).resolve(), name, True) for folder in spec.submodule_search_locations]
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise wrong("add_local_python_source", name, "a module that can be imported here and is written in Python")
    return [LocalFiles(Path(spec.origin).resolve(), f"{name}.py", True)]


def _existing(path: Any) -> Path:
    text = os.fspath(path) if isinstance(path, (str, Path)) else ""
    if not text or "\0" in text:
        raise wrong("local_path", path, "the path of a file or folder")
    try:
        return Path(text).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidRequestError(f"local_path: {text} cannot be read: {error}", code="file_missing") from error


def _place(remote: Any) -> str:
    if not isinstance(remote, str) or not remote or not is_workdir(remote):
        raise wrong(
            "remote_path", remote, WORKDIR_RULE.replace("a folder of the app's files", "below the working folder")
        )
    return remote
