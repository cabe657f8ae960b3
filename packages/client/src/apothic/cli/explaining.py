"""What stopped an app's file while it was loaded: where in the user's own code, and what was perhaps meant."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from operator import attrgetter
from pathlib import Path

from apothic.wire.names import near_matches

_OPTION = re.compile(r"([\w.]+)\(\) got an unexpected keyword argument '(\w+)'")
_IMPORTED = re.compile(r"cannot import name '(\w+)'")


def explain(error: BaseException, path: Path, base: Path) -> str:
    """Say what a user's file raised, and the last line of the project's own code that was reached.

    Args:
        error: What the file raised.
        path: The file.
        base: The project's folder.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}\n    {(error.text or '').strip()}"
    name, text = type(error).__name__, str(error)
    what = f"{name}: {text}" if text else name
    near = _meant(error)
    if near:
        what = f"{what.removesuffix('.')}. Did you mean {' or '.join(near)}?"
    return locate(what, error, base) or f"{path} cannot be loaded: {what}"


def locate(what: str, error: BaseException, base: Path) -> str | None:
    """Put the last line of the project's own code that an error passed around a sentence; None when it passed none."""
    files = [(Path(frame.filename), frame) for frame in traceback.extract_tb(error.__traceback__)]
    own = [frame for file, frame in files if base in file.parents and "site-packages" not in file.parts]
    return f"{own[-1].filename}:{own[-1].lineno}: {what}\n    {own[-1].line}" if own else None


def _meant(error: BaseException) -> list[str]:
    """Return names near one that does not exist: of an option of ours, an attribute, or something to import."""
    if isinstance(error, AttributeError) and error.name:
        return near_matches(error.name, [name for name in dir(error.obj) if not name.startswith("_")])
    if isinstance(error, TypeError) and (found := _OPTION.search(str(error))):
        return near_matches(found[2], _options(found[1]))
    if isinstance(error, ImportError) and error.name in sys.modules and (found := _IMPORTED.match(str(error))):
        return near_matches(found[1], [name for name in dir(sys.modules[error.name]) if not name.startswith("_")])
    return []


def _options(qualified: str) -> list[str]:
    """Return the options of a callable of the SDK; none of one that is not ours."""
    import apothic

    try:
        return [name for name in inspect.signature(attrgetter(qualified)(apothic)).parameters if name != "self"]
    except (AttributeError, TypeError, ValueError):
        return []
