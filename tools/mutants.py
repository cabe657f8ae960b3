"""Plants faults, one at a time, and sees whether the tests of the promise that it breaks turn red.

Usage: mutants.py [--only WORD] [--write FILE]

Works in a checkout of its own (`.mutants/`), made from the last commit, so that no fault ever touches the files you
edit. The tests run once without any fault first: one that fails anyway finds nothing. Prints one line per fault; exits
with 1 when one survives, or cannot be planted any more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from apothic_server.testing.guarantees import Promise, claims

ROOT = Path(__file__).parents[1]
CATALOGUE = Path("tests/mutants.toml")
CHECKOUT = ROOT / ".mutants"
DEADLINE_S = 240
OUTPUT_MAX = 4_000
"""Characters shown of what failing tests say."""

FAILED = 1
"""Exit status of pytest when tests ran and some failed; any other says nothing of them."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted fault: in `file`, `old` becomes `new`, which breaks the rule `breaks` of a promise."""

    promise: Promise
    breaks: str
    file: Path
    old: str
    new: str
    tests: tuple[str, ...]


def catalogue(root: Path) -> list[Mutant]:
    """Return the planted faults, each with the tests that claim its promise.

    Raises:
        KeyError: An entry lacks a field.
    """
    claimed: dict[Promise, list[str]] = {}
    for claim in claims(root):
        claimed.setdefault(claim.promise, []).append(f"{claim.path}::{claim.function}")
    entries = tomllib.loads((root / CATALOGUE).read_text("utf-8"))["mutant"]
    found: list[Mutant] = []
    for entry in entries:
        promise = Promise(*entry["promise"].split())
        tests = tuple(entry.get("tests", claimed.get(promise, [])))
        found.append(Mutant(promise, entry["breaks"], Path(entry["file"]), entry["old"], entry["new"], tests))
    return found


def main() -> int:
    """Run the faults asked for and print what became of them."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    planted = catalogue(ROOT)
    mutants = [one for one in planted if options.only in f"{one.promise.id} {one.promise.test} {one.breaks}"]
    commit = _git("rev-parse", "--short", "HEAD")
    _make_checkout()
    if (failed := _fail_anyway(mutants)) is not None:
        print(failed, "", "These tests fail without any fault.", sep="\n", file=sys.stderr)
        return 1
    rows: dict[str, str] = {}
    for one in mutants:
        rows[_row_head(one)] = _row(one, commit)
        if options.write is not None:  # each time, so that a run that is interrupted keeps what it found
            page = options.write.read_text("utf-8").partition(MARK)
            options.write.write_text(f"{page[0]}{MARK}\n\n{_table(planted, rows, page[2])}\n", "utf-8")
    killed = sum("| killed" in row for row in rows.values())
    print(*rows.values(), "", f"{killed} of {len(rows)} planted faults found.", sep="\n")
    return 0 if killed == len(rows) else 1


MARK = "<!-- the last run -->"
"""Everything after this line of the page is made by this program."""


def _table(planted: list[Mutant], rows: dict[str, str], before: str) -> str:
    """Return the table with `rows`; of faults that were not planted this time with what it said before."""
    lines = before.splitlines()
    kept = {head: line for head in map(_row_head, planted) for line in lines if line.startswith(head)}
    found = [(kept | rows)[head] for head in map(_row_head, planted) if head in kept | rows]
    killed = sum("| killed" in row for row in found)
    return "\n".join(
        [
            f"{killed} of {len(planted)} planted faults found.",
            "",
            "| promise | test | the fault | found | seconds | commit |",
            "|---|---|---|---|---|---|",
            *found,
        ]
    )


def _fail_anyway(mutants: list[Mutant]) -> str | None:
    """Return what pytest says of tests that fail without any fault; None when all pass."""
    done = _run_tests(sorted({test for mutant in mutants for test in mutant.tests}), timeout_s=None)
    return done.stdout.decode("utf-8", "replace")[-OUTPUT_MAX:] if done.returncode else None


def _run_tests(tests: Iterable[str], *options: str, timeout_s: float | None) -> subprocess.CompletedProcess[bytes]:
    command = [str(CHECKOUT / ".venv/bin/python"), "-m", "pytest", "-p", "no:cacheprovider", *options, *tests]
    return subprocess.run(
        command, cwd=CHECKOUT, timeout=timeout_s, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


def _row_head(mutant: Mutant) -> str:
    return f"| {mutant.promise.id} | `{mutant.promise.test}` | {mutant.breaks} | "


def _row(mutant: Mutant, commit: str) -> str:
    began = time.monotonic()
    verdict = _verdict(mutant)
    print(f"{mutant.promise.id} {mutant.promise.test}: {mutant.breaks}: {verdict}", file=sys.stderr)
    return f"{_row_head(mutant)}{verdict} | {time.monotonic() - began:.0f} | {commit} |"


def _verdict(mutant: Mutant) -> str:
    path = CHECKOUT / mutant.file
    source = path.read_text("utf-8")
    if source.count(mutant.old) != 1:
        return "cannot be planted"
    if not mutant.tests:
        return "has no test"
    path.write_text(source.replace(mutant.old, mutant.new), "utf-8")
    try:
        done = _run_tests(mutant.tests, "-x", timeout_s=DEADLINE_S)
    except subprocess.TimeoutExpired:
        return "killed (the tests never ended)"
    finally:
        path.write_text(source, "utf-8")
    if done.returncode == FAILED:
        return "killed"
    return "SURVIVED" if done.returncode == 0 else f"the tests did not run (status {done.returncode})"


def _make_checkout() -> None:
    _remove_checkout()
    _git("worktree", "add", "--detach", str(CHECKOUT), "HEAD")
    uv = ROOT / ".venv/bin/uv"
    python = ROOT / ".venv/bin/python"
    environ = {**os.environ, "UV_SYSTEM_CERTS": "1"}  # where the system's authorities sign
    subprocess.run([uv, "sync", "--frozen", "--quiet", "--python", python], cwd=CHECKOUT, check=True, env=environ)


def _remove_checkout() -> None:
    if CHECKOUT.exists():
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(CHECKOUT)], check=False)
        shutil.rmtree(CHECKOUT, ignore_errors=True)
    _git("worktree", "prune")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Plant faults and see whether the tests find them.")
    parser.add_argument("--only", default="", metavar="WORD", help="those whose id, test or fault holds this")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put the table into this page after {MARK!r}")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        _remove_checkout()
