"""What an app is made of besides its own functions: local entrypoints, and other apps that it includes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from apothic._ranges import wrong
from apothic.errors import ConflictError, InvalidRequestError, NotFoundError
from apothic.wire.names import FUNCTION_NAME_RULE, is_function_name, near_matches

if TYPE_CHECKING:
    from typing import Self  # Python 3.10 has none

    from apothic.function import Function

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound="Composition")


class LocalEntrypoint(Generic[P, R]):
    """A function that runs on the caller's machine and calls deployed ones; `apothic run FILE::NAME` runs it.

    Attributes:
        name: Its name in the app.
        python_function: The undecorated function.
    """

    def __init__(self, name: str, python_function: Callable[P, R]) -> None:
        self.name = name
        self.python_function = python_function
        self.__doc__ = python_function.__doc__

    def __repr__(self) -> str:
        return f"<LocalEntrypoint {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here."""
        return self.python_function(*args, **kwargs)


class AppNamespace:
    """The functions of an included app, as attributes.

    Attributes:
        name: Name of the namespace.
        functions: By name.
    """

    def __init__(self, name: str, functions: Mapping[str, Function[..., Any]]) -> None:
        self.name = name
        self.functions = MappingProxyType(dict(functions))

    def __repr__(self) -> str:
        return f"<AppNamespace {self.name}>"

    def __getattr__(self, name: str) -> Function[..., Any]:
        functions: Mapping[str, Function[..., Any]] = self.__dict__.get("functions", {})
        if name in functions:
            return functions[name]
        raise AttributeError(_missing("the namespace", "function", name, functions))


class Composition:
    """The part of `App` that this module is about."""

    def __init__(self) -> None:
        self._functions: dict[str, Function[..., Any]] = {}
        self._entrypoints: dict[str, LocalEntrypoint[..., Any]] = {}
        self._namespaces: dict[str, AppNamespace] = {}
        self._includer: Composition | None = None

    def __getattr__(self, name: str) -> Any:
        for kind in ("_functions", "_entrypoints", "_namespaces"):
            found: Mapping[str, Any] = self.__dict__.get(kind, {})
            if name in found:
                return found[name]
        if name.startswith("_"):
            raise AttributeError(name)
        known = [*self._functions, *self._entrypoints, *self._namespaces]
        raise AttributeError(_missing("the app", "function, entrypoint or namespace", name, known))

    @property
    def functions(self) -> Mapping[str, Function[..., Any]]:
        """The functions decorated and included so far, by name; read-only."""
        return MappingProxyType(self._functions)

    @property
    def local_entrypoints(self) -> Mapping[str, LocalEntrypoint[..., Any]]:
        """The local entrypoints so far, by name; read-only."""
        return MappingProxyType(self._entrypoints)

    @property
    def namespaces(self) -> Mapping[str, AppNamespace]:
        """The included apps that were given a namespace, by its name; read-only."""
        return MappingProxyType(self._namespaces)

    def local_entrypoint(
        self, misplaced: object = None, /, *, name: str | None = None
    ) -> Callable[[Callable[P, R]], LocalEntrypoint[P, R]]:
        """Make the decorated function one that `run_local` and `apothic run` call on the caller's own machine.

        Args:
            name: Its name in the app, by default that of the function.

        Raises:
            InvalidRequestError: The name breaks the rule.
            ConflictError: The app has something of this name already (`duplicate_name`).
        """
        if misplaced is not None:
            raise InvalidRequestError("Write @app.local_entrypoint() with parentheses.")

        def add(python_function: Callable[P, R]) -> LocalEntrypoint[P, R]:
            made = LocalEntrypoint(name or python_function.__name__, python_function)
            self._check_free(made.name)
            self._entrypoints[made.name] = made
            return made

        return add

    def get_local_entrypoint(self, name: str | None = None) -> LocalEntrypoint[..., Any]:
        """Return a local entrypoint; without a name the only one.

        Raises:
            NotFoundError: There is none of this name, or none at all; the message names near matches.
            InvalidRequestError: There are several and no name was given (`several_entrypoints`).
        """
        known = self._entrypoints
        if name is None and len(known) > 1:
            raise InvalidRequestError(f"Name one of the entrypoints: {', '.join(known)}.", code="several_entrypoints")
        if name is None and known:
            return next(iter(known.values()))
        if name is None:
            raise NotFoundError("The app has no local entrypoint; decorate a function with @app.local_entrypoint().")
        if name not in known:
            raise NotFoundError(_missing("the app", "local entrypoint", name, known))
        return known[name]

    def run_local(
        self,
        *,
        entrypoint_name: str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a local entrypoint in this process and return its result; an awaitable one is awaited.

        Args:
            entrypoint_name: Which one; None for the only one.

        Raises:
            NotFoundError, InvalidRequestError: As `get_local_entrypoint`.
            BaseException: Whatever the entrypoint raises.
        """
        found = self.get_local_entrypoint(entrypoint_name)(*(args or ()), **(kwargs or {}))
        if not inspect.isawaitable(found):
            return found
        import asyncio

        async def wait() -> Any:
            return await found

        return asyncio.run(wait())

    def include(self, other: Composition, *, namespace: str | None = None) -> Self:
        """Make the functions of another app part of this one and return this one; a deploy of it deploys them too.

        The other app need not be deployed itself; calls through its handles go to this one.

        Args:
            namespace: Also reach them as `app.NAMESPACE.FUNCTION`; a Python identifier.

        Raises:
            InvalidRequestError: It is no other app, or the namespace is no identifier.
            ConflictError: A name is taken already (`duplicate_name`), or the other app is included elsewhere
                (`included_already`); nothing is included then.
        """
        if not isinstance(other, Composition) or other is self:  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong("other", other, "another App")
        if other._includer is not None:
            raise ConflictError("That app is part of another one already.", code="included_already")
        if self._outermost() is other:
            raise ConflictError("That app includes this one.", code="included_already")
        if namespace is not None:
            self._check_free(namespace)
        for name in other.functions:
            self._check_free(name)
            if name == namespace:
                raise _taken(name)
        if namespace is not None:
            self._namespaces[namespace] = AppNamespace(namespace, other.functions)
        self._functions.update(other.functions)
        other._includer = self
        return self

    def _outermost(self) -> Composition:
        """Return the app that is deployed: this one, or the one that includes it in the end."""
        found: Composition = self
        while found._includer is not None:
            found = found._includer
        return found

    def _check_free(self, name: str) -> None:
        if not is_function_name(name):
            raise wrong("name", name, FUNCTION_NAME_RULE)
        if name in self._functions or name in self._entrypoints or name in self._namespaces:
            raise _taken(name)


def _taken(name: str) -> ConflictError:
    return ConflictError(f"The app has something called {name} already; rename one.", code="duplicate_name")


def _missing(where: str, kind: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    near = near_matches(name, list(known))
    advice = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{where} has no {kind} {name!r}{advice}"
