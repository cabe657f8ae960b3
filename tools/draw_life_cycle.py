#!/usr/bin/env python3
"""Draws the life cycle of jobs into docs/concepts/life-of-a-job.md from the table the server decides with."""

import re
from pathlib import Path

from apothic_server.domain.jobs import JOB, JobStatus

PAGE = Path(__file__).resolve().parents[1] / "docs/concepts/life-of-a-job.md"
DRAWING = re.compile(r"(?<=<!-- drawn by tools/draw_life_cycle.py -->\n).*?(?=<!-- end of the drawing -->)", re.DOTALL)


def drawing() -> str:
    """Return the diagram as a block of Markdown."""
    lines = ["stateDiagram-v2", f"    [*] --> {JobStatus.QUEUED.value}: called"]
    for status, moves in JOB.table.items():
        lines += [f"    {status.value} --> {after.value}: {event.value}" for event, after in moves.items()]
        if JOB.is_final(status):
            lines.append(f"    {status.value} --> [*]")
    return "\n".join(["```mermaid", *lines, "```", ""])


def drawn(text: str) -> str:
    """Return the page with the diagram as it must be."""
    return DRAWING.sub(drawing().replace("\\", "\\\\"), text)


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text("utf-8")), "utf-8")
