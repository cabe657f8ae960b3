"""Load the file of an app without running what follows its definitions.

An app's file may deploy itself and call its own functions at top level, without a `__main__` guard. While a runner or
the CLI loads it, `App.deploy()` and every remote call ask `stop_if_loading()`, which ends the execution of that one
module: what was defined so far stays, and a module that imported it goes on. The same holds for a module of the app
that a function imports later, while it runs.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType


class DefinitionsComplete(BaseException):
    """Ends the load of the module that is being executed; its definitions stay."""


class _Depth(threading.local):
    value = 0


_depth = _Depth()


@dataclass
class _Place:
    is_runner: bool = False


_place = _Place()


def enter_runner() -> None:
    """Note that this process runs functions of a deployed app."""
    _place.is_runner = True


def is_in_runner() -> bool:
    """Whether this process runs functions of a deployed app."""
    return _place.is_runner


def is_loading() -> bool:
    """Whether a module of an app is being executed in this thread."""
    return _depth.value > 0


def stop_if_loading() -> None:
    """End the module that is being loaded in this thread; do nothing outside a load.

    Raises:
        DefinitionsComplete: A load is running; the loader catches it.
    """
    if is_loading():
        raise DefinitionsComplete


def load_module(root: Path, module: str) -> ModuleType:
    """Import `module` from `root` and return it with everything that was defined before its load was stopped.

    `root` becomes the first entry of `sys.path` and stays there, so that functions can import its modules later. An
    earlier import of the same module is returned as it is.

    Raises:
        ImportError: `root` has no such module, or another module of that name is loaded already.
        BaseException: Whatever the module raises while it runs, for example `SyntaxError`.
    """
    folder = str(root)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not any(isinstance(finder, _StoppingFinder) and finder.root == root for finder in sys.meta_path):
        sys.meta_path.insert(0, _StoppingFinder(root))
    __import__(module)  # unlike importlib.import_module it leaves no frame in the traceback of a failing module
    loaded = sys.modules[module]
    file = getattr(loaded, "__file__", None)
    if file is None or root not in Path(file).parents:
        raise ImportError(_taken(module), name=module)
    return loaded


def load_file(path: Path) -> ModuleType:
    """Run the file `path` as a module named like the file, as far as its definitions go, and return the module.

    The file's folder is the first entry of `sys.path` meanwhile, as for a script; afterwards `sys.path` is as before.
    The module stays in `sys.modules` unless it raised.

    Raises:
        ImportError: The file has the name of a module that exists already, so a runner could not import it.
        BaseException: Whatever the file raises while it runs, for example `SyntaxError`.
    """
    path = path.resolve()
    name = path.stem
    known = sys.modules.get(name)
    if name in sys.stdlib_module_names or (known is not None and getattr(known, "__file__", None) != str(path)):
        raise ImportError(_taken(name), name=name, path=str(path))
    with _like_a_script(path.parent):
        return _execute(name, path)


def _taken(name: str) -> str:
    return f"the name {name!r} belongs to another module that Python has already; rename the app's file"


def _execute(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, loader=_StoppableLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}", name=name, path=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


@contextmanager
def _like_a_script(folder: Path) -> Generator[None]:
    search_path, entries = sys.path, list(sys.path)
    finder = _StoppingFinder(folder)
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.path = search_path
        sys.path[:] = entries
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class _StoppableLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        _depth.value += 1
        try:
            super().exec_module(module)
        except DefinitionsComplete:
            return
        finally:
            _depth.value -= 1


class _StoppingFinder:
    """Finds modules as Python does, and makes the ones written in `root` stoppable."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or type(spec.loader) is not SourceFileLoader:
            return None
        if self.root not in Path(spec.origin).parents:
            return None
        spec.loader = _StoppableLoader(fullname, spec.origin)
        return spec
