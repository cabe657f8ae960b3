"""Which installed distributions provide the modules that an app's files import, at the versions they have here.

A function without an image gets exactly these. What they need themselves is left to the installer, and extras are not
guessed. Nothing is imported or executed: imports are read from the syntax tree, providers from the lists of files that
installed distributions keep.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apothic.wire.images import is_requirement

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from importlib.metadata import Distribution

OURS = frozenset({"apothic", "apothic_server", "apothic_worker"})
"""Modules that are never installed: workers bring their own."""


@dataclass(frozen=True)
class Packages:
    """What functions without an image have beside the app's own modules.

    Attributes:
        requirements: One distribution each, at its version here, sorted.
        notes: Sentences for the person who deploys: what functions will not have, and why.
    """

    requirements: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def imports_of(tree: ast.AST) -> set[str]:
    """Return the dotted names that a file may import from elsewhere, in functions and under conditions too.

    Relative imports and those for type checkers only are left out.
    """
    found: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and _is_for_types(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.update(node.module if alias.name == "*" else f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)
    return found


def packages_of(names: Iterable[str]) -> Packages:
    """Return the distributions that provide modules; `names` are dotted, without those of Python and of the app."""
    by_top: dict[str, set[str]] = {}
    for name in names:
        by_top.setdefault(name.partition(".")[0], set()).add(name)
    installed = _installed() if by_top.keys() - OURS else []
    found: set[str] = set()
    notes: list[str] = []
    missing: list[str] = []
    for top in sorted(by_top.keys() - OURS):
        providers = _providers(installed, top, by_top[top])
        pins = {pin for provider in providers if (pin := _pin(provider))}
        found |= pins
        if pins:
            continue
        spec = _spec(top)
        if providers or spec is not None:
            notes.append(_not_installable(top, providers))
        else:
            missing.append(top)
    if missing:
        notes.append(f"not installed here, so functions do not have it: {', '.join(missing)}")
    return Packages(tuple(sorted(found, key=str.lower)), tuple(notes))


def _is_for_types(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


@dataclass(frozen=True)
class _Installed:
    distribution: Distribution
    files: str


def _installed() -> list[_Installed]:
    from importlib import metadata  # slow to import, and most files import nothing

    return [_Installed(one, _files(one)) for one in metadata.distributions()]


def _files(distribution: Distribution) -> str:
    """Return the distribution's list of files; of one that keeps none, the files its modules would have."""
    if record := distribution.read_text("RECORD"):
        return record
    tops = (distribution.read_text("top_level.txt") or "").split()
    return "".join(f"{top}/__init__.py,\n" for top in tops)


def _providers(installed: list[_Installed], top: str, names: set[str]) -> list[_Installed]:
    """Return what provides a module; where several share a namespace, those that hold the modules below it."""
    sharing = [one for one in installed if _holds(one, top)]
    if len(sharing) < 2:
        return sharing
    outermost = {name for name in names if not any(other.startswith(f"{name}.") for other in names)}
    found: dict[int, _Installed] = {}
    for name in outermost:
        for part in _prefixes(name):
            if holding := [one for one in sharing if _holds(one, part)]:
                found.update((id(one), one) for one in holding)
                break
    return list(found.values())


def _prefixes(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _holds(one: _Installed, module: str) -> bool:
    """Whether a distribution has files of a module, or below it."""
    path = re.escape(module.replace(".", "/"))
    return re.search(rf'^"?{path}(?:/[^,\n]*)?\.(?:[\w-]+\.)?(?:py|so|pyd)"?,', one.files, re.MULTILINE) is not None


def _pin(one: _Installed) -> str:
    """Return the requirement; empty for a distribution that no index has under this version."""
    name, version = one.distribution.metadata["Name"], one.distribution.version
    pin = f"{name}=={version}"
    return "" if not (name and version) or _is_local(one.distribution) or not is_requirement(pin) else pin


def _is_local(distribution: Distribution) -> bool:
    """Whether it was installed from a folder, a file or an address."""
    origin = distribution.read_text("direct_url.json")
    if origin is None:
        return False
    try:
        return "url" in json.loads(origin)
    except (ValueError, TypeError):
        return False


def _spec(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)  # of a name without dots: imports nothing
    except (ImportError, ValueError):
        return None


def _not_installable(top: str, providers: list[_Installed]) -> str:
    names = ", ".join(sorted({str(one.distribution.metadata["Name"]) for one in providers}))
    whence = f"comes from {names}, which is installed here" if names else "is imported here"
    return (
        f"{top} {whence} from a folder or an address, so workers cannot install it: publish it, put its files into "
        f"the app's folder, or give functions an image with add_local_python_source({top!r})"
    )
