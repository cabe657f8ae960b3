"""Which names apps, functions and workers may have, and the near matches that an error names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from apothic.wire.limits import FUNCTION_NAME_LENGTH_MAX, NAME_LENGTH_MAX

_APP = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_WORKER = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
APP_NAME_RULE = (
    f"1 to {NAME_LENGTH_MAX} letters, digits, dots, dashes and underscores, beginning and ending with a letter or digit"
)
WORKER_NAME_RULE = (
    f"1 to {NAME_LENGTH_MAX} lower-case letters, digits and dashes, beginning and ending with a letter or digit; "
    "`local` and names that begin with `local-` belong to workers beside servers"
)
FUNCTION_NAME_RULE = f"a Python identifier of at most {FUNCTION_NAME_LENGTH_MAX} ASCII characters"


def is_app_name(text: str) -> bool:
    """Whether `text` obeys `APP_NAME_RULE`."""
    return len(text) <= NAME_LENGTH_MAX and _APP.fullmatch(text) is not None


def is_worker_name(text: str) -> bool:
    """Whether `text` obeys `WORKER_NAME_RULE`."""
    return _is_like_a_workers(text) and not is_local_name(text)


def is_local_name(text: str) -> bool:
    """Whether `text` is a name that a worker beside a server can have."""
    return _is_like_a_workers(text) and (text == "local" or text.startswith("local-"))


def is_function_name(text: str) -> bool:
    """Whether `text` obeys `FUNCTION_NAME_RULE`."""
    return text.isascii() and text.isidentifier() and len(text) <= FUNCTION_NAME_LENGTH_MAX


def _is_like_a_workers(text: str) -> bool:
    return len(text) <= NAME_LENGTH_MAX and _WORKER.fullmatch(text) is not None


def near_matches(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three of `known` that look like `name`, the best first."""
    folded = {other.lower(): other for other in known}
    return [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)]
