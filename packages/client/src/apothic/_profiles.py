"""The profiles file: the clouds that somebody uses from here, each with its key."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from apothic.config import read_config
from apothic.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_RULE = "1 to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit"
_HEAD = "# Written by `apothic login` and `apothic profile`, which keep no comments.\n"


@dataclass(frozen=True)
class Profile:
    """One cloud; `key` is None when it is given by a variable only."""

    name: str
    base_url: str
    key: str | None = field(repr=False)

    @property
    def shown_key(self) -> str | None:
        """Enough of the key to recognise it."""
        return None if self.key is None else f"{self.key[:5]}…{self.key[-4:]}" if len(self.key) > 20 else "…"


@dataclass(frozen=True)
class Profiles:
    """All profiles by name, and which of them is active, if any."""

    active: str | None
    known: Mapping[str, Profile]


def is_profile_name(text: str) -> bool:
    """Whether `text` obeys `NAME_RULE`."""
    return _NAME.fullmatch(text) is not None


def read_profiles(path: Path) -> Profiles:
    """Return the profiles of a file; none when it does not exist.

    Raises:
        ConfigError: The file cannot be read, is malformed, or holds what no profile has, which a change would lose.
    """
    config = read_config(path)
    active, tables = config.get("active"), config.get("profiles", {})
    is_known = set(config) <= {"active", "profiles"} and isinstance(active, (str, type(None)))
    if not is_known or not isinstance(tables, dict):
        raise ConfigError(f'{path}: it may hold `active = "NAME"` and tables [profiles.NAME] only')
    found = {name: _profile(path, name, table) for name, table in cast("dict[str, Any]", tables).items()}
    return Profiles(active, found)


def write_profiles(path: Path, profiles: Profiles) -> None:
    """Write a file that only its owner can read, whole or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    lines = [_HEAD, *([f"active = {_text(profiles.active)}\n"] if profiles.active is not None else [])]
    for profile in profiles.known.values():
        key = "" if profile.key is None else f"api_key = {_text(profile.key)}\n"
        lines.append(f"\n[profiles.{_text(profile.name)}]\nbase_url = {_text(profile.base_url)}\n{key}")
    half = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        half.unlink(missing_ok=True)
        half.touch(mode=0o600, exist_ok=False)
        half.write_text("".join(lines), "utf-8")
        half.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _profile(path: Path, name: str, table: Any) -> Profile:
    fields = cast("dict[str, Any]", table) if isinstance(table, dict) else {}
    url, key = fields.get("base_url"), fields.get("api_key")
    if not isinstance(url, str) or not isinstance(key, (str, type(None))) or not set(fields) <= {"base_url", "api_key"}:
        raise ConfigError(f"{path}: profile {name!r} needs a text base_url, may have a text api_key, and nothing else")
    return Profile(name, url, key)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
