"""A pytest plugin that keeps skipped tests visible: always listed, and failures where nothing may be missing.

`pytest --strict-skips` turns every skip into a failure. Skip with `needs`, which names what would enable the test.
`note` adds a line to the end of the run for what a test left out without being skipped, like an interpreter that this
machine does not have.

When several processes share a run (pytest-xdist), the one that prints gets their reports, and in the end their notes.
"""

import shutil
from typing import Any

import pytest

__all__ = ["needs", "note"]

_NOTES = pytest.StashKey[list[str]]()


def needs(program: str, *, package: str) -> str:
    """Return the full path of `program`, or skip the running test and name the Debian package that brings it."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs `{program}`: apt-get install {package}")
    return path


def note(config: pytest.Config, text: str) -> None:
    """Show `text` at the end of the run, above pytest's summary line."""
    config.stash.setdefault(_NOTES, []).append(text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the notes of the run."""
    for text in sorted(set(config.stash.get(_NOTES, ()))):
        terminalreporter.write_line(f"note: {text}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the notes over when another process prints them."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["notes"] = session.config.stash.get(_NOTES, list[str]())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the notes of a process that has run its tests; one that died has handed over none."""
    del error
    for text in getattr(node, "workeroutput", {}).get("notes", ()):
        note(node.config, text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --strict-skips."""
    parser.addoption("--strict-skips", action="store_true", help="a skipped test is a failure")


def pytest_configure(config: pytest.Config) -> None:
    """List the reasons of skips at the end of every run, and count skips under --strict-skips."""
    if "s" not in config.option.reportchars:
        config.option.reportchars += "s"
    if config.getoption("--strict-skips"):
        config.pluginmanager.register(_SkipsFail(), "strict-skips")


class _SkipsFail:
    """Turns a green run with skips into a failed one."""

    def __init__(self) -> None:
        self._skipped = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._count(report)

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        self._skipped += report.skipped and not hasattr(report, "wasxfail")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._skipped:
            terminalreporter.write_line(
                f"{self._skipped} skipped: under --strict-skips nothing may be skipped", red=True
            )
