"""Checks answers against the committed OpenAPI document: status, headers, content type and body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from jsonschema import Draft202012Validator

from apothic_server.testing.asgi import Answer

METHODS = ("get", "head", "post", "put", "patch", "delete")

Node = dict[str, Any]


@dataclass(frozen=True)
class Described:
    """One operation of the document."""

    id: str
    method: str
    path: str
    content: Node

    @property
    def statuses(self) -> frozenset[int]:
        return frozenset(int(status) for status in self.content["responses"])


class Contract:
    """The document, ready to judge answers."""

    def __init__(self, document: Node) -> None:
        self.document = document
        self.operations = {found.id: found for found in _operations(document)}

    def follow(self, node: Node) -> Node:
        """Return what a `$ref` into the document names; other nodes as they are."""
        while "$ref" in node:
            target = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            node = target
        return node

    def parameters(self, operation: str, place: str) -> dict[str, Node]:
        """Return the parameters of an operation in `path` or `query`, by name."""
        described = self.operations[operation]
        listed = [
            *self.document["paths"][described.path].get("parameters", []),
            *described.content.get("parameters", []),
        ]
        found = [self.follow(parameter) for parameter in listed]
        return {parameter["name"]: parameter for parameter in found if parameter["in"] == place}

    def check(self, operation: str, answer: Answer) -> None:
        """Raise AssertionError or `jsonschema.ValidationError` when the document does not describe `answer`."""
        described = self.operations[operation]
        responses: Node = described.content["responses"]
        assert str(answer.status) in responses, f"{operation} answered undocumented {answer.status}: {answer.body!r}"
        response = self.follow(responses[str(answer.status)])
        for name, header in response.get("headers", {}).items():
            self._check_header(self.follow(header), answer.headers.get(name.lower()))
        if described.method == "HEAD":
            assert not answer.body, f"{operation} answered HEAD with a body"
        else:
            self._check_body(response, answer)

    def schema_problems(self, schema: Node, value: Any) -> list[str]:
        """Return what is wrong with `value` by a schema of the document."""
        validator = Draft202012Validator({**schema, "components": self.document["components"]})
        errors = cast("Iterator[Exception]", validator.iter_errors(value))  # pyright: ignore[reportUnknownMemberType] - untyped library
        return [str(error) for error in errors]

    def _check_header(self, header: Node, value: str | None) -> None:
        if value is None:
            assert not header.get("required"), f"a required header is missing: {header}"
            return
        assert not (problems := self.schema_problems(header["schema"], value)), problems

    def _check_body(self, response: Node, answer: Answer) -> None:
        content: Node = response.get("content", {})
        if not content:
            assert not answer.body, "an answer without documented content has a body"
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in content, f"undocumented content type {media_type}"
        schema = content[media_type].get("schema")
        if schema is not None:
            value = answer.json if media_type == "application/json" else answer.body.decode()
            assert not (problems := self.schema_problems(schema, value)), problems


def _operations(document: Node) -> Iterator[Described]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield Described(item[method]["operationId"], method.upper(), path, item[method])
