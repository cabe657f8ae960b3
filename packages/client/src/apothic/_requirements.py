"""Requirements as people have them - arguments, requirements files, pyproject.toml - as lines of distributions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from apothic._ranges import texts, wrong
from apothic.errors import InvalidRequestError
from apothic.wire.images import is_requirement

INCLUDES_MAX = 20
"""Files deep that `-r` may lead."""

_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"(-[a-zA-Z]|--[a-z-]+)(?:[ =]\s*|(?=\S)|$)(.*)")
_INDEX = ("-i", "-f", "--index-url", "--extra-index-url", "--find-links", "--no-index", "--trusted-host")


def checked(text: Any, place: str = "") -> str:
    """Return a requirement without needless space.

    Raises:
        InvalidRequestError: It is not one; says what to write instead.
    """
    if not isinstance(text, str):
        raise wrong("package", text, "a text such as 'numpy>=2'; give several as several arguments")
    line = " ".join(text.split())
    if is_requirement(line):
        return line
    raise InvalidRequestError(
        f"{place}{_shown(line)} cannot be installed: {_advice(line)}.", code="invalid_requirement"
    )


def of_file(path: Any, depth: int = 0) -> list[str]:
    """Return the requirements of a file and of those it includes.

    Raises:
        InvalidRequestError: It cannot be read, or a line is no requirement.
    """
    file = _path(path, "a requirements file")
    found: list[str] = []
    for number, line in _lines(_read(file)):
        place = f"{file.name}, line {number}: "
        option = _OPTION.fullmatch(line)
        if option is None:
            found.append(checked(line, place))
        elif option[1] in {"-r", "--requirement"} and depth < INCLUDES_MAX:
            found += of_file(file.parent / option[2].strip(), depth + 1)
        else:
            raise InvalidRequestError(f"{place}{_refusal(option[1])}.", code="invalid_requirement")
    return found


def of_pyproject(path: Any, groups: str | list[str] | None) -> list[str]:
    """Return `dependencies` of a pyproject.toml and those of the named groups.

    Raises:
        InvalidRequestError: It cannot be read, has no such group, or an entry is no requirement.
    """
    file = _path(path, "a pyproject.toml")
    project = _table(_toml(file).get("project"), f"{file.name} has no table [project]")
    optional = _table(project.get("optional-dependencies", {}), f"{file.name}: optional-dependencies is no table")
    lists = [("dependencies", project.get("dependencies", []))]
    for group in [] if groups is None else texts("optional_dependencies", groups):
        if group not in optional:
            there = ", ".join(sorted(optional)) or "none"
            raise InvalidRequestError(f"{file.name} has no optional-dependencies {group!r}; it has: {there}.")
        lists.append((group, optional[group]))
    found: list[str] = []
    for name, entries in lists:
        if not isinstance(entries, list):
            raise InvalidRequestError(f"{file.name}: {name} is no list.")
        found += [checked(entry, f"{file.name}, {name}: ") for entry in cast("list[Any]", entries)]
    return found


def _path(path: Any, of: str) -> Path:
    if not isinstance(path, (str, Path)) or not str(path):
        raise wrong("path", path, f"the path of {of}")
    return Path(path)


def _lines(text: str) -> list[tuple[int, str]]:
    """Return lines that say something, with their numbers; those that end in a backslash are joined."""
    found: list[tuple[int, str]] = []
    held, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        first = first if held else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            held += line[:-1] + " "
            continue
        whole = _COMMENT.sub("", held + line).strip()
        held = ""
        if whole:
            found.append((first, whole))
    rest = _COMMENT.sub("", held).strip()
    return [*found, (first, rest)] if rest else found


def _refusal(option: str) -> str:
    if option in {"-e", "--editable"}:
        return (
            "code of your own is uploaded with the app, not installed; import it in the app's file and leave this out"
        )
    if option in _INDEX:
        return f"{option} is not for apps to say; whoever runs the worker sets its package index (UV_DEFAULT_INDEX)"
    if option in {"-c", "--constraint"}:
        return f"{option} is not supported; write the versions into the requirements"
    return f"the option {option} is not supported"


def _advice(line: str) -> str:
    if not line:
        return "it is empty"
    if line.startswith("-"):
        return "it is an option; write names of packages only"
    if "@" in line or "://" in line or line.startswith("git+"):
        return "packages come from the package index by name, not from an address; publish a wheel there"
    if line.startswith((".", "/", "~")) or line.endswith((".whl", ".gz", ".zip")):
        return "packages come from the package index by name, not from a file; import your own code in the app's file"
    if re.fullmatch(r"[A-Za-z0-9._-]+( +[A-Za-z0-9._-]+)+", line):
        return "it is several; give each as an argument of its own"
    if re.search(r"[^=<>!~]=[^=]", line):
        return "an exact version is written with two equals signs, such as numpy==2.1.0"
    return "write a name and what it needs, such as numpy, numpy>=2 or pydantic[email]~=2.7"


def _shown(line: str) -> str:
    return repr(line if len(line) <= 80 else f"{line[:79]}…")


def _toml(file: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        raise InvalidRequestError(
            "pyproject.toml is read from Python 3.11 up; write the packages with pip_install."
        ) from None
    try:
        return tomllib.loads(_read(file))
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequestError(f"{file.name} is no TOML: {error}.") from error


def _table(value: Any, otherwise: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{otherwise}.")
    return cast("dict[str, Any]", value)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InvalidRequestError(f"{file} cannot be read: {error}") from error
