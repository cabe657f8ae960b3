"""Options of a command made from the signature of a Python function, and the values that they stand for."""

from __future__ import annotations

import enum
import inspect
import json
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import click

from apothic.errors import InvalidRequestError

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # older versions of click do not know what its values are
    ParamType = click.ParamType

PREFIX = "arg_"
"""Before the names of a function's parameters in the values of a command, so that they are none of its own options."""


class JsonValue(ParamType):
    """A value written as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the decoded value; click tells what is no JSON."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"is not JSON: {error}", param, ctx)


class Member(click.Choice[str]):
    """A member of an enumeration, by its name."""

    def __init__(self, kind: type[enum.Enum]) -> None:
        super().__init__([member.name for member in kind])
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the member."""
        return value if isinstance(value, self._kind) else self._kind[super().convert(value, param, ctx)]


def options_of(python_function: Callable[..., Any]) -> list[click.Option]:
    """Return one option for each parameter; one without a default is required.

    `str`, `int`, `float` and `bool` are written as they are, of a list each item by an option of its own, members of an
    enumeration by name; anything else is JSON, and what has no annotation is text.

    Raises:
        InvalidRequestError: The function takes any number of arguments, which no options can name (`no_options`).
    """
    hints = _hints(python_function)
    found: list[click.Option] = []
    for parameter in inspect.signature(python_function).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise InvalidRequestError(
                f"{python_function.__name__} takes any number of arguments ({parameter}), which have no options: "
                "deploy it, then call it with --app-name and --payload.",
                code="no_options",
            )
        found.append(_option(parameter, hints.get(parameter.name, str)))
    return found


def arguments_of(python_function: Callable[..., Any], ctx: click.Context) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and named arguments as the command line gives them; what it does not give is left out.

    Raises:
        InvalidRequestError: One is left out before another one that can only be given by its place (`no_options`).
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    skipped = None
    for parameter in inspect.signature(python_function).parameters.values():
        name = PREFIX + parameter.name
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            skipped = skipped or parameter.name
            continue
        value = ctx.params[name]
        value = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
        if parameter.kind is not parameter.POSITIONAL_ONLY:
            kwargs[parameter.name] = value
        elif skipped is None:
            args.append(value)
        else:
            raise InvalidRequestError(
                f"Give --{_dashed(skipped)}, too: it comes first by its place.", code="no_options"
            )
    return args, kwargs


def _hints(python_function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations; those that cannot be read, for example names that exist for checkers only, are JSON."""
    try:
        return get_type_hints(python_function)
    except Exception:
        given: Mapping[str, Any] = getattr(python_function, "__annotations__", {})
        simple: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}
        return {name: simple.get(hint, Any) if isinstance(hint, str) else hint for name, hint in given.items()}


def _option(parameter: inspect.Parameter, hint: Any) -> click.Option:
    is_required = parameter.default is parameter.empty
    hint = _without_none(hint)
    spelling = f"--{_dashed(parameter.name)}"
    names = [PREFIX + parameter.name, spelling]
    shown = "Required." if is_required else f"By default {_shown(parameter.default)}."
    if hint is bool:
        names[1] = f"{spelling}/--no-{_dashed(parameter.name)}"
        return click.Option(names, required=is_required, default=None, help=shown)
    is_list = hint is list or get_origin(hint) is list
    if is_list:
        inner = get_args(hint)
        hint, shown = (inner[0] if inner else str), f"{shown} Give it once for each item."
    return click.Option(names, type=_type(_without_none(hint)), required=is_required, multiple=is_list, help=shown)


def _type(hint: Any) -> ParamType:
    simple: dict[Any, ParamType] = {
        str: click.STRING, int: click.INT, float: click.FLOAT, bool: click.BOOL,
    }  # fmt: skip
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return Member(hint)
    if get_origin(hint) is Literal and all(isinstance(value, str) for value in get_args(hint)):
        return click.Choice([str(value) for value in get_args(hint)])
    return simple.get(hint) or JsonValue()


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in {Union, types.UnionType}:
        return hint
    rest = [part for part in get_args(hint) if part is not type(None)]
    return rest[0] if len(rest) == 1 else Any


def _dashed(name: str) -> str:
    return name.strip("_").replace("_", "-") or name


def _shown(value: Any) -> str:
    return value.name if isinstance(value, enum.Enum) else repr(value)
