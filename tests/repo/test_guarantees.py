"""Promises, pending rows and tests agree, and the decorator gives the marks it says."""

import subprocess
import sys
from pathlib import Path

import pytest

from apothic_server.testing.guarantees import claims, disagreements, guarantee, promises, report

ROOT = Path(__file__).parents[2]

PROMISES = """
- **G3.2** Both sides use one number. T:`self_fence_on_partition` (200 of 200), T:`second`.
- **G3.3** Death is noticed. T:`lost_worker_latency`.
"""


def _tree(root: Path, *, pending: str = "", tests: str = "") -> Path:
    (root / "docs").mkdir()
    (root / "tests").mkdir()
    (root / "docs/guarantees.md").write_text(PROMISES)
    (root / "docs/guarantees-pending.md").write_text(pending)
    (root / "tests/test_one.py").write_text(tests)
    return root


def test_promises_pending_rows_and_tests_agree():
    assert disagreements(ROOT) == []


def test_every_promise_of_the_document_names_a_test():
    text = (ROOT / "docs/guarantees.md").read_text("utf-8")
    written = {line[4:].split("**")[0] for line in text.splitlines() if line.startswith("- **G")}

    assert written == {promise.id for promise in promises(text)}


def test_a_promise_without_test_and_row_is_reported(tmp_path: Path):
    pending = "| G3.2 | `self_fence_on_partition` | later |\n| G3.2 | `second` | later |\n"

    found = disagreements(_tree(tmp_path, pending=pending))

    assert found == ["G3.3 lost_worker_latency has no test and no row in docs/guarantees-pending.md"]


def test_stale_rows_and_unknown_claims_are_reported(tmp_path: Path):
    pending = "".join(
        f"| {row} | later |\n"
        for row in ("G3.2 | `self_fence_on_partition`", "G3.2 | `second`", "G3.3 | `lost_worker_latency`")
    )
    tests = '@guarantee("G3.2", "second")\n@guarantee("G9.9", "invented")\ndef test_a(): ...\n'

    found = disagreements(_tree(tmp_path, pending=pending, tests=tests))

    assert found == [
        "G9.9 invented is claimed by a test but not promised",
        "G3.2 second has a test: remove it from the pending rows",
    ]


def test_a_partly_proven_row_needs_a_test(tmp_path: Path):
    partly = "| G3.2 | `self_fence_on_partition` | open |\n| G3.3 | `lost_worker_latency` | open |\n"
    pending = f"| G3.2 | `second` | later |\n\n## Partly proven\n{partly}"
    tests = '@guarantee("G3.2", "self_fence_on_partition", count=200)\nasync def test_a(): ...\n'
    root = _tree(tmp_path, pending=pending, tests=tests)

    assert disagreements(root) == [
        "G3.3 lost_worker_latency has no test and no row in docs/guarantees-pending.md",
        "G3.3 lost_worker_latency is listed as partly proven but has no test",
    ]
    assert "tests/test_one.py::test_a (200 times); open" in report(root)


def test_a_promise_says_how_many_of_its_planted_faults_were_found(tmp_path: Path):
    tests = '@guarantee("G3.2", "second")\n@guarantee("G3.3", "lost_worker_latency")\ndef test_a(): ...\n'
    root = _tree(tmp_path, tests=tests)
    verdicts = ("killed | 3", "killed (the tests never ended) | 600", "SURVIVED | 4")
    (root / "docs/mutants.md").write_text("".join(f"| G3.2 | `second` | a fault | {one} | abc |\n" for one in verdicts))

    lines = {line.split()[1]: line for line in report(root).splitlines() if line.startswith("G")}

    assert lines["second"].endswith("test_a; 2 of 3 planted faults found")
    assert lines["lost_worker_latency"].endswith("test_a")


def test_a_claim_is_written_with_literals_or_constants_of_its_module(tmp_path: Path):
    root = _tree(tmp_path, tests="TIMES = 3\n@guarantee('G3.2', 'second', count=TIMES)\ndef test_a(): ...\n")

    assert [claim.count for claim in claims(root)] == [3]


def test_a_claim_that_cannot_be_read_is_refused(tmp_path: Path):
    root = _tree(tmp_path, tests="@guarantee(PROMISE, 'second')\ndef test_a(): ...\n")

    with pytest.raises(ValueError, match="literals or constants"):
        claims(root)


def test_the_decorator_adds_the_marks_of_section_and_promise():
    @guarantee("G3.2", "self_fence_on_partition", count=200)
    @guarantee("G1.1", "job_terminal_once")
    def scenario() -> None: ...

    assert {mark.name for mark in scenario.pytestmark} == {"G3", "G3_2", "G1", "G1_1"}


@pytest.mark.parametrize(("promise", "name", "count"), [("3.2", "a", None), ("G3.2", "A b", None), ("G3.2", "a", 0)])
def test_a_malformed_guarantee_is_refused(promise: str, name: str, count: int | None):
    with pytest.raises(ValueError, match="guarantee"):
        guarantee(promise, name, count=count)


def test_strict_runs_accept_the_marks_of_promises_and_no_others(tmp_path: Path):
    head = "from apothic_server.testing.guarantees import guarantee\n"
    known = '@guarantee("G3.2", "second")\ndef test_known(): ...\ndef test_other(): ...\n'
    unknown = '@guarantee("G9.9", "invented")\ndef test_unknown(): ...\n'
    root = _tree(tmp_path, tests=head + known)
    (root / "tests/test_two.py").write_text(head + unknown)

    accepted = _strict(root, "tests/test_one.py", "-m", "G3_2")
    refused = _strict(root, "tests/test_two.py")

    assert "1 passed, 1 deselected" in accepted.stdout
    assert "'G9' not found in `markers`" in refused.stdout


def _strict(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = (
        "--strict-markers",
        "-p",
        "apothic_server.testing.guarantees",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
    )
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
