"""The pages of the documentation that are written from the code."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apothic

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = {
    "Apps and functions": (
        "App", "Function", "FunctionOptions", "Retries", "ConcurrencySpec", "LocalEntrypoint", "AppNamespace",
    ),
    "What is deployed": ("RemoteApp", "Deployment", "RemoteFunction"),
    "Environments and schedules": ("Image", "Cron", "Period"),
    "Jobs": ("Job", "JobGroup"),
    "Connections": ("ControlPlaneClient",),
}  # fmt: skip
"""Names in the order of the page; events and errors follow by themselves."""
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)


def python() -> str:
    """Return the page about the public names of `apothic`."""
    public = [name for name in apothic.__all__ if inspect.isclass(getattr(apothic, name))]
    placed = {name for names in CHAPTERS.values() for name in names}
    others = [name for name in public if name not in placed]
    errors = [name for name in others if issubclass(getattr(apothic, name), Exception)]
    chapters = {**CHAPTERS, "Streams": tuple(name for name in others if name not in errors), "Errors": tuple(errors)}
    parts = ["# Python reference\n\nWritten from the docstrings. What begins with an underscore is private.\n"]
    for title, names in chapters.items():
        parts.append(f"## {title}\n")
        parts += [_class(name, getattr(apothic, name)) for name in names]
    return "\n".join(parts)


def http() -> str:
    """Return the page about the operations of the HTTP API."""
    document = json.loads((ROOT / "openapi/runtime.json").read_text("utf-8"))
    parts = ["# HTTP reference\n\nWritten from the OpenAPI document, which a cloud serves at `/v1/openapi.json`.\n"]
    parts.append("## Conventions\n\n" + document["info"]["description"] + "\n\n## Operations\n")
    for path, methods in document["paths"].items():
        shared = methods.get("parameters", [])
        for method, operation in methods.items():
            if method != "parameters":
                parts.append(_operation(document, f"{method.upper()} {path}", operation, shared))
    return "\n".join(parts)


def _class(name: str, found: type) -> str:
    parts = [f"### {name}\n"]
    if not issubclass(found, Exception):
        parts.append(_code(name, found))
    parts.append(_text(inspect.getdoc(found) or ""))
    for member, value in _members(found):
        parts.append(f"#### {name}.{member}\n")
        if not isinstance(value, property):
            parts.append(_code(member, value))
        parts.append(_text(inspect.getdoc(value) or ""))
    return "\n".join(parts)


def _members(found: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that the package itself documents, in the order of the code."""
    if issubclass(found, Exception):
        return
    seen: set[str] = set()
    for owner in (one for one in found.__mro__ if one.__module__.startswith("apothic")):
        for name, raw in vars(owner).items():
            value = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
            value = property(value.func) if hasattr(value, "attrname") and hasattr(value, "func") else value
            is_shown = inspect.isfunction(value) or isinstance(value, property)
            if is_shown and not name.startswith("_") and name not in seen and inspect.getdoc(value):
                seen.add(name)
                yield name, value


def _code(name: str, found: Any) -> str:
    signature = inspect.signature(found)
    if inspect.isclass(found):
        signature = signature.replace(return_annotation=inspect.Signature.empty)
    names = [one for one in signature.parameters.values() if one.name != "self" or one.kind.name == "KEYWORD_ONLY"]
    text = str(signature.replace(parameters=names)).replace("'", "")
    if len(name) + len(text) > 100:
        inner = "".join(f"    {one},\n" for one in _parameters(names))
        text = f"(\n{inner})" + (f" -> {str(signature.return_annotation).strip()}" if _returns(signature) else "")
    return f"```python\n{name}{text}\n```\n"


def _returns(signature: inspect.Signature) -> bool:
    return signature.return_annotation not in (inspect.Signature.empty, "None", None)


def _parameters(names: list[inspect.Parameter]) -> Iterator[str]:
    """Yield the parameters with the bare `*` that makes the rest keywords."""
    has_star = False
    for one in names:
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            has_star = True
        elif one.kind is inspect.Parameter.KEYWORD_ONLY and not has_star:
            has_star = True
            yield "*"
        yield str(one).replace("'", "")


def _text(docstring: str) -> str:
    """Return a docstring as Markdown: its sections as lists, its examples as code."""
    before, *sections = SECTION.split(docstring)
    parts = [_paragraphs(before)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        parts.append(f"**{title}**\n")
        if title in ("Returns", "Yields"):
            parts.append(inspect.cleandoc(body) + "\n")
        else:
            parts.append("\n".join(_items(inspect.cleandoc(body))) + "\n")
    return "\n".join(parts)


def _paragraphs(text: str) -> str:
    """Return prose as it is and indented examples in fences."""
    found: list[str] = []
    for block in re.split(r"\n{2,}", text.strip("\n")):
        is_code = all(line.startswith("    ") for line in block.splitlines() if line)
        found.append(f"```python\n{inspect.cleandoc(block)}\n```" if block and is_code else block)
    return "\n\n".join(found).replace("```\n\n```python\n", "\n") + "\n"


def _items(body: str) -> Iterator[str]:
    for entry in re.split(r"\n(?=\S)", body):
        name, colon, said = entry.partition(":")
        words = " ".join(said.split())
        yield f"- `{name.strip()}`: {words}" if colon else f"- {' '.join(entry.split())}"


def _operation(document: dict[str, Any], title: str, operation: dict[str, Any], shared: list[dict[str, Any]]) -> str:
    policy = operation["x-apothic-policy"]
    parts = [f"### {operation['operationId']}\n", f"`{title}`: {operation['summary']}.\n"]
    if "description" in operation:
        parts.append(operation["description"] + "\n")
    rows = [_parameter(document, one) for one in (*shared, *operation.get("parameters", []))]
    if rows:
        parts.append("| Parameter | In | Meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    limit = operation["x-apothic-body-max"]
    facts = [f"who may: {_policy(policy)}", f"body: {f'up to {limit:,} bytes' if limit else 'none'}"]
    parts.append("; ".join([*facts, f"answers: {', '.join(operation['responses'])}"]).capitalize() + ".\n")
    return "\n".join(parts)


def _policy(policy: dict[str, Any]) -> str:
    scope = f" with {policy['scope']}" if "scope" in policy else ""
    inside = ", and user code" if policy.get("attempts") else ""
    return f"{policy['audience']}{scope}{inside}"


def _parameter(document: dict[str, Any], one: dict[str, Any]) -> str:
    while "$ref" in one:
        one = document["components"]["parameters"][one["$ref"].rpartition("/")[2]]
    said = " ".join(str(one.get("description", "")).split()).replace("|", "\\|")
    return f"| `{one['name']}` | {one['in']} | {said} |"
