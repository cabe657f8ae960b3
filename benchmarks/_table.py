"""All goals in one table, from what the benchmarks have left in `.bench/results`.

Usage: _table.py [--write FILE]

With `--write` it takes the place of the table between the two marks in a page of the documentation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _measuring import RESULTS
from _verdict import GOAL_HEAD, Goal

BEGIN, END = "<!-- table of make bench -->\n", "<!-- end of the table -->\n"


def main() -> int:
    """Print or write the table; 1 when no benchmark has run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="put it into this page instead of printing it")
    options = parser.parse_args()
    results = {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}
    if not results:
        print("no benchmark has run; make bench runs all of them", file=sys.stderr)
        return 1
    text = together(results)
    if options.write is None:
        print(f"\n{text}")
    else:
        options.write.write_text(_replaced(options.write.read_text(), text))
    return 0


def together(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of the goals of all runs, and below it one line for each run.

    Args:
        results: What `_measuring.run` has kept, by the name of the benchmark.
    """
    head, rule = GOAL_HEAD.splitlines()
    lines = [f"{head} run |", f"{rule}---|"]
    notes: list[str] = []
    for name, result in results.items():
        states = [("invalid", "; ".join(result["invalid"])), ("incomplete", _missing(result["not_measured"]))]
        standing = [(word, why) for word, why in states if why]
        word = " and ".join(word for word, _ in standing) or "valid"
        lines += [f"{Goal(**goal).row()} `{name}`, {word} |" for goal in result["goals"]]
        why = "".join(f" {word}: {why}." for word, why in standing)
        notes.append(f"* `{name}`: {result['machine']}.{why}")
    return "\n".join([*lines, "", *notes]) + "\n"


def _missing(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"{key} ({reason})" for key, reason in reasons.items())


def _replaced(page: str, text: str) -> str:
    start, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit("the page has no place for the table")
    return f"{start}{BEGIN}\n{text}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
