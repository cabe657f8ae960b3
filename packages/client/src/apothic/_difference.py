"""What differs between two deployments of an app: their manifests, compared without knowing their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

Values = tuple[Any, Any]
"""Before and after."""

_VALUE_SHOWN = 60
_PACKAGES_SHOWN = 12


@dataclass(frozen=True)
class Names:
    """Names that came, that went, and that stayed with another content; each sorted."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """What a deployment has otherwise than another.

    Attributes:
        functions: By name.
        options: Of each changed function, the options with their values before and after.
        files: Of the archive, by path; None when one of the two does not tell its files.
        environment: What both do otherwise for all functions, such as the Python version: values before and after.
    """

    functions: Names = Names()
    options: dict[str, dict[str, Values]] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]
    files: Names | None = Names()
    environment: dict[str, Values] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]

    def lines(self) -> list[str]:
        """Return one line for each change: `+` came, `-` went, `~` changed."""
        found = [f"+ function {name}" for name in self.functions.added]
        found += [f"- function {name}" for name in self.functions.removed]
        for name in self.functions.changed:
            changes = [change for key, pair in self.options[name].items() for change in _changes(key, *pair)]
            found += [f"~ function {name}: {change}" for change in changes]
        found += [f"~ {_change(key, *pair)}" for key, pair in self.environment.items()]
        files = self.files or Names()
        for sign, paths in (("+", files.added), ("-", files.removed), ("~", files.changed)):
            found += [f"{sign} file {path}" for path in paths]
        return found if self.files is not None else [*found, "? files cannot be compared"]


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    """Compare two manifests in their JSON form; a field that only one of them knows is left out."""
    old, new = _functions(before), _functions(after)
    options = {name: _fields(old[name], new[name]) for name in sorted(old.keys() & new.keys())}
    options = {name: found for name, found in options.items() if found}
    functions = Names(tuple(sorted(new.keys() - old.keys())), tuple(sorted(old.keys() - new.keys())), tuple(options))
    apart = {"functions", "files", "file_sizes"}
    return Difference(functions, options, _files(before, after), _fields(before, after, apart))


def _functions(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {spec["name"]: spec for spec in cast("list[dict[str, Any]]", manifest.get("functions", []))}


def _fields(before: Mapping[str, Any], after: Mapping[str, Any], apart: set[str] | None = None) -> dict[str, Values]:
    shared = sorted((before.keys() & after.keys()) - (apart or set()))
    return {key: (before[key], after[key]) for key in shared if before[key] != after[key]}


def _files(before: Mapping[str, Any], after: Mapping[str, Any]) -> Names | None:
    old = cast("dict[str, str]", before.get("files") or {})
    new = cast("dict[str, str]", after.get("files") or {})
    if not old or not new:
        return None
    changed = sorted(path for path in old.keys() & new.keys() if old[path] != new[path])
    return Names(tuple(sorted(new.keys() - old.keys())), tuple(sorted(old.keys() - new.keys())), tuple(changed))


def _changes(name: str, before: Any, after: Any) -> list[str]:
    """Return one change in words; of images, what is installed besides and what no more, and each other field."""
    if name != "image":
        return [_change(name, before, after)]
    old, new = cast("dict[str, Any]", before or {}), cast("dict[str, Any]", after or {})
    fields = {key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())}
    is_now = [f"+ {one}" for one in new.get("requirements", []) if one not in old.get("requirements", [])]
    was = [f"- {one}" for one in old.get("requirements", []) if one not in new.get("requirements", [])]
    found = [f"packages {_some([*was, *is_now])}"] if was or is_now else []
    for key, (one, other) in fields.items():
        if key != "requirements" and one != other and (one or other) and not (key == "python" and not (old and new)):
            found.append(_change(f"image {key}", one, other))
    return found or [_change(name, before, after)]


def _some(texts: list[str]) -> str:
    more = len(texts) - _PACKAGES_SHOWN
    return ", ".join(texts[:_PACKAGES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _change(name: str, before: Any, after: Any) -> str:
    return f"{name} {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    text = value if value and isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _VALUE_SHOWN else f"{text[: _VALUE_SHOWN - 1]}…"
