#!/usr/bin/env python3
"""`make docs`: builds the site of the documentation into `.site/html`; a broken link or a page in no list ends it.

The pages are those of `docs/` as they are, and two that are written here from the code: the Python reference from the
docstrings, the HTTP reference from the OpenAPI document. The order of the site is that of the lists in `docs/README.md`
and in the README of each folder.

    tools/docs.py [--docs FOLDER] [--out FOLDER]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import docs_reference

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
WRITTEN = {"reference/python.md": docs_reference.python, "reference/http.md": docs_reference.http}
"""Pages that exist on the site only, by their names."""
PLACE = "<!-- pages written from the code -->"
"""Where the reference lists them."""

CONFIG = """\
[project]
site_name = "Apothic"
site_description = "A compute cloud that you run yourself."
docs_dir = "pages"
site_dir = "html"
use_directory_urls = false
nav = [
{nav}]

[project.theme]
font = false
features = ["navigation.indexes", "navigation.top", "search.highlight", "content.code.copy"]

[project.markdown_extensions]
tables = {{}}
"pymdownx.highlight" = {{}}
"pymdownx.superfences" = {{ custom_fences = [{{ name = "mermaid", class = "mermaid" }}] }}
[project.markdown_extensions.toc]
permalink = true
"""


class Refused(Exception):
    """The site cannot be built of these pages; the text is for people."""


def main() -> int:
    """Build the site; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--out", type=Path, default=ROOT / ".site")
    given = parser.parse_args()
    try:
        assemble(given.docs.resolve(), given.out)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 1
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=given.out, env={**os.environ, "NO_COLOR": "1"}, check=False).returncode


def assemble(docs: Path, out: Path) -> None:
    """Write pages and configuration of the site into a folder, which is emptied before.

    Raises:
        Refused: A page is in no list, or in two.
    """
    shutil.rmtree(out, ignore_errors=True)
    pages = out / "pages"
    for path in sorted(docs.rglob("*.md")):
        page = pages / path.relative_to(docs)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_inside(path, docs), "utf-8")
    for name, write in WRITTEN.items():
        (pages / name).write_text(write(), "utf-8")
    index = pages / "reference/README.md"
    items = "\n".join(f"- [{_title(pages / name)}]({name.partition('/')[2]})" for name in WRITTEN)
    index.write_text(index.read_text("utf-8").replace(PLACE, items), "utf-8")
    listed: list[str] = []
    nav = "".join(_entries(pages, pages / "README.md", listed, depth=1))
    there = sorted(str(path.relative_to(pages)) for path in pages.rglob("*.md"))
    if wrong := [name for name in there if listed.count(name) != 1]:
        raise Refused(f"not in exactly one list of a README.md below docs: {', '.join(wrong)}")
    (out / "zensical.toml").write_text(CONFIG.format(nav=nav), "utf-8")


def _inside(path: Path, docs: Path) -> str:
    """Return a page in which links that leave the folder of documents are words."""

    def kept(link: re.Match[str]) -> str:
        name = link[2].partition("#")[0]
        leaves = name and "://" not in name and not (path.parent / name).resolve().is_relative_to(docs)
        return link[1] if leaves else link[0]

    return LINK.sub(kept, path.read_text("utf-8"))


def _entries(pages: Path, index: Path, listed: list[str], depth: int) -> list[str]:
    """Return the lines of the navigation for a README and what its lists name; `listed` grows by their names."""
    blank = "  " * depth
    listed.append(str(index.relative_to(pages)))
    found = [f'{blank}"{listed[-1]}",\n']
    for target in _named(index):
        if target.name == "README.md":
            lines = "".join(_entries(pages, target, listed, depth + 1))
            found.append(f"{blank}{{ {_quoted(_title(target))} = [\n{lines}{blank}] }},\n")
        else:
            listed.append(str(target.relative_to(pages)))
            found.append(f"{blank}{{ {_quoted(_title(target))} = {_quoted(listed[-1])} }},\n")
    return found


def _named(index: Path) -> list[Path]:
    """Return the pages that the lists and tables of a README begin with, in order."""
    items = re.findall(r"^(?:- |\| )\[[^\]]*\]\(([^)\s#]+)\)", FENCE.sub("", index.read_text("utf-8")), re.MULTILINE)
    return [(index.parent / item / ("README.md" if item.endswith("/") else "")).resolve() for item in items]


def _title(page: Path) -> str:
    if not page.is_file():
        raise Refused(f"a list names {page.name}, which is not there")
    return page.read_text("utf-8").partition("\n")[0].removeprefix("# ").replace("`", "")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    sys.exit(main())
