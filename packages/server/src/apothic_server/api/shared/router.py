"""Finds the operation of a request by walking the path's segments through nested dicts."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from apothic_server.api.shared.errors import MethodNotAllowed
from apothic_server.api.shared.operations import Operation, StartRefusedError
from apothic_server.domain.errors import NotFound

NO_PATH = "There is nothing at this address."


class _Node:
    __slots__ = ("children", "methods", "parameter", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.methods: dict[str, Operation] = {}
        self.parameter: str | None = None
        self.rest: _Node | None = None


class Router:
    """Routes of a table. A place in a path is either literal or a parameter, never both.

    Raises:
        StartRefusedError: Two operations match one request, or a place has two meanings.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._root = _Node()
        for operation in operations:
            self._add(operation)

    def find(self, method: str, raw_path: bytes) -> tuple[Operation, dict[str, str]]:
        """Return the operation and its decoded path parameters.

        Args:
            method: Upper-case HTTP method.
            raw_path: Path as sent, still percent-encoded, without the query.

        Raises:
            NotFound: No operation has this path, or a segment is no UTF-8.
            MethodNotAllowed: Operations with this path have other methods.
        """
        if raw_path[:1] != b"/":
            raise NotFound(NO_PATH)
        node = self._root
        parameters: dict[str, str] = {}
        for segment in raw_path.decode("latin-1").split("/")[1:]:
            child = node.children.get(segment)
            if child is None:
                child = node.rest
                if child is None or node.parameter is None or not segment:
                    raise NotFound(NO_PATH)
                parameters[node.parameter] = _decode(segment)
            node = child
        operation = node.methods.get(method)
        if operation is not None:
            return operation, parameters
        if not node.methods:
            raise NotFound(NO_PATH)
        raise MethodNotAllowed(tuple(node.methods))

    def _add(self, operation: Operation) -> None:
        node = self._root
        for segment in operation.path.split("/")[1:]:
            node = _step(node, segment, operation)
        if operation.method in node.methods:
            raise StartRefusedError(f"{operation.id} and {node.methods[operation.method].id} have one method and path")
        node.methods[operation.method] = operation


def _step(node: _Node, segment: str, operation: Operation) -> _Node:
    if not segment.startswith("{"):
        if node.rest is not None:
            raise StartRefusedError(f"{operation.id}: {segment} stands where another operation has a parameter")
        return node.children.setdefault(segment, _Node())
    name = segment[1:-1]
    if node.children or node.parameter not in (None, name):
        raise StartRefusedError(f"{operation.id}: {segment} stands where another operation has something else")
    if node.rest is None:
        node.parameter, node.rest = name, _Node()
    return node.rest


def _decode(segment: str) -> str:
    if "%" not in segment and segment.isascii():
        return segment
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise NotFound(NO_PATH) from None
