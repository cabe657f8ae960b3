"""Every module says what it is for, and every public name of the three packages says what it does."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src"))

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def test_every_module_has_a_docstring():
    assert [name for name, tree in _modules() if tree.body and ast.get_docstring(tree) is None] == []


def test_every_public_function_and_class_has_a_docstring():
    found = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in _modules()
        if "/_" not in name
        for node in _public(tree)
        if ast.get_docstring(node) is None
    ]

    assert "\n".join(found) == ""


def test_every_public_method_of_the_sdk_has_a_docstring():
    found = [
        f"{name}:{method.lineno} {node.name}.{method.name}"
        for name, tree in _modules()
        if name.startswith("apothic/") and name.count("/") == 1 and "/_" not in name
        for node in _public(tree)
        if isinstance(node, ast.ClassDef)
        for method in _public(node)
        if ast.get_docstring(method) is None
    ]

    assert "\n".join(found) == ""


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for source in SOURCES:
        for path in sorted(source.rglob("*.py")):
            yield str(path.relative_to(source)), ast.parse(path.read_text("utf-8"))


def _public(body: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for node in body.body:
        if isinstance(node, Definition) and not node.name.startswith("_") and not _is_overload(node):
            yield node


def _is_overload(node: Definition) -> bool:
    marks = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return not marks.isdisjoint({"overload", "setter"})
