#!/usr/bin/env python3
"""Moves the fragments of changes/ into a new section of CHANGELOG.md: release_notes.py VERSION DATE."""

import re
import sys
from pathlib import Path

KINDS = {"added": "Added", "changed": "Changed", "fixed": "Fixed", "removed": "Removed", "security": "Security"}
NAME = re.compile(rf"[a-z0-9-]+\.(?:{'|'.join(KINDS)})\.md")


def fragments(folder: Path) -> list[Path]:
    """Return the fragments in `folder`, sorted by name.

    Raises:
        ValueError: A file is no fragment, or an empty one.
    """
    found = sorted(path for path in folder.iterdir() if path.name != "README.md")
    for path in found:
        if not NAME.fullmatch(path.name):
            raise ValueError(f"{path.name} is not named <short-name>.<kind>.md, with a kind of {', '.join(KINDS)}")
        if not path.read_text("utf-8").strip():
            raise ValueError(f"{path.name} is empty")
    return found


def section(version: str, date: str, found: list[Path]) -> str:
    """Return the section of one release: its title, then the fragments under their kinds."""
    parts = [f"## {version} · {date}\n"]
    for kind, title in KINDS.items():
        texts = [path.read_text("utf-8").strip() for path in found if path.name.endswith(f".{kind}.md")]
        if texts:
            parts.append(f"### {title}\n\n" + "\n".join(f"- {text}" for text in texts) + "\n")
    return "\n".join(parts)


def release(root: Path, version: str, date: str) -> None:
    """Write the section above the older ones and delete the fragments."""
    found = fragments(root / "changes")
    changelog = root / "CHANGELOG.md"
    head, mark, rest = changelog.read_text("utf-8").partition("\n## ")
    older = f"\n{mark.strip()} {rest}" if mark else ""
    changelog.write_text(f"{head.rstrip()}\n\n{section(version, date, found)}{older}", "utf-8")
    for path in found:
        path.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: release_notes.py VERSION DATE, for example release_notes.py 0.1.0 2026-12-01")
    release(Path(__file__).resolve().parents[1], sys.argv[1], sys.argv[2])
