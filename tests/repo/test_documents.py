"""Documents stay true: links lead somewhere, code shown is the code that runs, and the map names what is there."""

import ast
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from .tracked import ROOT, documents

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
RUNS = re.compile(r"^<!-- runs: (\S+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOTTED = re.compile(r"`((?:apothic|apothic_worker|apothic_server)(?:\.\w+)+)`")
ROW = re.compile(r"^\| `(\w+(?:\.py|/))` \|", re.MULTILINE)
PACKAGES = {"client": "apothic", "worker": "apothic_worker", "server": "apothic_server"}


def test_every_relative_link_leads_to_a_file_and_a_heading():
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents()
        for target in LINK.findall(FENCE.sub("", path.read_text("utf-8")))
        if "://" not in target and not _leads_somewhere(path, target)
    ]

    assert "\n".join(broken) == ""


def test_code_shown_in_documents_is_the_code_of_the_examples():
    shown = {target: code for path in documents() for target, code in RUNS.findall(path.read_text("utf-8"))}

    assert "examples/hello_world.py" in shown
    assert shown == {target: (ROOT / target).read_text("utf-8") for target in shown}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_names_every_top_level_module(package: str):
    chapter = _chapter((ROOT / "ARCHITECTURE.md").read_text("utf-8"), f"packages/{package}")
    source = ROOT / "packages" / package / "src" / PACKAGES[package]
    there = {path.name + "/" for path in source.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    there |= {path.name for path in source.glob("*.py")}

    assert set(ROW.findall(chapter)) == there


def test_names_in_documents_exist_in_the_code():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in documents()
        for name in DOTTED.findall(path.read_text("utf-8"))
        if not _exists(name)
    ]

    assert "\n".join(wrong) == ""


def test_release_notes_move_the_fragments_into_the_changelog(tmp_path: Path):
    notes = _tool("release_notes")
    (tmp_path / "changes").mkdir()
    (tmp_path / "changes/README.md").write_text("how to\n")
    (tmp_path / "changes/b.added.md").write_text("A new thing.\n")
    (tmp_path / "changes/a.fixed.md").write_text("A fault.\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\nNewest first.\n\n## 0.1.0 · 2026-01-01\n\nOld.\n")

    notes.release(tmp_path, "0.2.0", "2026-02-02")

    text = (tmp_path / "CHANGELOG.md").read_text()
    assert text == (
        "# Changelog\n\nNewest first.\n\n## 0.2.0 · 2026-02-02\n\n### Added\n\n- A new thing.\n\n"
        "### Fixed\n\n- A fault.\n\n## 0.1.0 · 2026-01-01\n\nOld.\n"
    )
    assert [path.name for path in (tmp_path / "changes").iterdir()] == ["README.md"]


def test_every_change_fragment_has_a_known_kind_and_a_text():
    assert _tool("release_notes").fragments(ROOT / "changes") != []


def test_the_life_cycle_on_the_page_is_the_one_the_server_decides_with():
    tool = _tool("draw_life_cycle")
    page = (ROOT / "docs/concepts/life-of-a-job.md").read_text("utf-8")

    assert tool.drawing() in page
    assert page == tool.drawn(page)


def _leads_somewhere(document: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (document.parent / name).resolve() if name else document
    if not path.is_relative_to(ROOT) or not path.exists():
        return False
    return not anchor or anchor in _anchors(path)


def _anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text("utf-8"))
    headings = [line.lstrip("#").strip().lower() for line in text.splitlines() if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def _chapter(text: str, title: str) -> str:
    return next(part for part in re.split(r"^#{2,3} ", text, flags=re.MULTILINE) if part.startswith(title))


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, or a name a module defines, also inside a class."""
    root = ROOT / "packages" / {module: package for package, module in PACKAGES.items()}[name.partition(".")[0]] / "src"
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        base = root.joinpath(*parts[:length])
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if file.is_file():
            return _defines(ast.parse(file.read_text("utf-8")), parts[length:])
    return False


def _defines(body: ast.AST, names: list[str]) -> bool:
    if not names:
        return True
    found = [node for node in ast.iter_child_nodes(body) if names[0] in _names_of(node)]
    return any(_defines(node, names[1:]) for node in found)


def _names_of(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {target.id for target in targets if isinstance(target, ast.Name)}
    return set()


def _tool(name: str):
    spec = spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules.pop(name, None)
    spec.loader.exec_module(module)
    return module
