"""Programs and commands that a page shows, so that tests can run them. How to mark them: docs/handbook/testing.md."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("concepts", "guides", "operations")
"""Folders of `docs/` in which every program and command is run, on one cloud."""

BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>example|prints|runs)(?:: (?P<file>[\w./-]+))?(?:, exits (?P<status>\d+))? -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """One program (`python`) or list of commands (`sh`).

    Attributes:
        file: Name of the program's file.
        status: Exit status it must have.
        prints: What it must print, with `…` for anything; None when the page does not say.
        line: Where it stands in the page.
    """

    language: str
    text: str
    file: str
    status: int
    prints: str | None
    line: int


def pages() -> list[Path]:
    """Return the pages whose examples are run."""
    found = [path for folder in FOLDERS for path in (ROOT / "docs" / folder).glob("*.md")]
    return sorted(path for path in found if path.name != "README.md")


def examples(text: str) -> list[Example]:
    """Return the examples of a page, in order.

    Raises:
        ValueError: A program or command is not marked, or a mark stands where it means nothing.
    """
    found: list[Example] = []
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        mark, language = block["mark"], block["language"]
        if mark == "runs":  # a program of the repository, which has its own test
            continue
        if language in ("python", "sh") and mark != "example":
            raise ValueError(f"line {line}: a block of {language} without <!-- example --> is run by nobody")
        if mark == "example":
            if language not in ("python", "sh") or (language == "python") != bool(block["file"]):
                raise ValueError(f"line {line}: an example is sh, or python with the name of its file")
            found.append(Example(language, block["text"], block["file"] or "", int(block["status"] or 0), None, line))
        elif mark == "prints":
            if not found or found[-1].prints is not None:
                raise ValueError(f"line {line}: nothing is there that could print this")
            last = found.pop()
            found.append(Example(last.language, last.text, last.file, last.status, block["text"], last.line))
    return found


def has_printed(said: str, expected: str) -> bool:
    """Whether the output is the expected one, in which `…` stands for anything; blanks at line ends do not count."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
    lines = "\n".join(line.rstrip() for line in said.strip().splitlines())
    return re.fullmatch(pattern, lines, re.DOTALL) is not None
