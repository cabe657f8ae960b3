"""Runs the targets under Atheris, one process each; `FUZZ_RUNS` executions together, 2,000,000 unless it is set.

Usage: python -m tests.fuzz [TARGET [FILE]]. With a file its bytes are run once, for example those of a fault found.
Atheris is not there for every Python; without it the same targets run with the mutator of the test suite.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = int(os.environ.get("FUZZ_RUNS", "2000000"))
CHILD = "--in-this-process"


def main() -> int:
    names = [argument for argument in sys.argv[1:] if argument != CHILD]
    if CHILD in sys.argv:
        _fuzz(names[0], int(names[1]), Path(names[2]))
        return 0
    from tests.fuzz.targets import TARGETS

    if len(names) == 2:
        TARGETS[names[0]].run(Path(names[1]).read_bytes())
        return 0
    failed: list[str] = []
    done = 0
    whole = sum(target.share for target in TARGETS.values())
    with_atheris = importlib.util.find_spec("atheris") is not None
    print("with Atheris" if with_atheris else "Atheris is not installed: with the mutator of the test suite")
    for name, target in TARGETS.items():
        if names and name not in names:
            continue
        runs = RUNS * target.share // whole
        began = time.monotonic()
        if not _ran(name, runs):
            failed.append(name)
        done += runs
        seconds = time.monotonic() - began
        verdict = "FAULT" if name in failed else "fine"
        print(f"{name:<16} {runs:>9,} executions {seconds:>7.1f} s  {verdict}", flush=True)
    print(f"{done:,} executions, {len(failed)} targets with a fault")
    return 1 if failed else 0


def _ran(name: str, runs: int) -> bool:
    """Whether a target came through; the bytes of a fault are left in the folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="corpus-") as corpus:
        command = [sys.executable, "-m", "tests.fuzz", CHILD, name, str(runs), corpus]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        print("\n".join((done.stdout + done.stderr).splitlines()[-40:]))
    return done.returncode == 0


def _fuzz(name: str, runs: int, corpus: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        _mutate(name, runs)
        return
    import atheris

    with atheris.instrument_imports(include=["apothic", "apothic_server", "apothic_worker"]):
        from tests.fuzz.seeds import SEEDS, WORDS
        from tests.fuzz.targets import TARGETS
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    words = corpus.with_suffix(".words")
    words.write_text("".join('"' + _escaped(word) + '"\n' for word in WORDS[name]))
    options = [f"-atheris_runs={runs}", "-max_len=4000", "-seed=1", f"-dict={words}", "-verbosity=0"]
    prefix = f"-artifact_prefix={tempfile.gettempdir()}/fault-{name}-"
    atheris.Setup([sys.argv[0], *options, prefix, str(corpus)], TARGETS[name].run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join("\\x" + word[at : at + 1].hex() for at in range(len(word)))


def _mutate(name: str, runs: int) -> None:
    from tests.fuzz.mutator import mutated
    from tests.fuzz.seeds import SEEDS, WORDS
    from tests.fuzz.targets import TARGETS

    for data in mutated(SEEDS[name], WORDS[name], runs):
        try:
            TARGETS[name].run(data)
        except BaseException:
            print(repr(data))
            raise


sys.exit(main())
