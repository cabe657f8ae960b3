"""The link between promises and tests: a decorator, a pytest plugin and a report.

`docs/guarantees.md` promises, `docs/guarantees-pending.md` says what is not proven yet and why, and tests claim a
promise with `@guarantee`. `python -m apothic_server.testing.guarantees` prints the state of every promise;
`disagreements` lists where the two files and the tests differ.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

__all__ = [
    "Claim",
    "Exemption",
    "Promise",
    "claims",
    "disagreements",
    "exemptions",
    "guarantee",
    "planted_faults",
    "promises",
    "report",
]

Test = TypeVar("Test", bound=Callable[..., object] | type)

PROMISES = Path("docs/guarantees.md")
PENDING = Path("docs/guarantees-pending.md")
MUTANTS = Path("docs/mutants.md")
TEST_FOLDERS = ("tests", "packages/client/tests", "packages/worker/tests", "packages/server/tests")

_ID = re.compile(r"G[0-9]+\.[0-9]+")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PROMISE_LINE = re.compile(r"^- \*\*(G[0-9]+\.[0-9]+)\*\*(.*)$", re.MULTILINE)
_TEST_NAME = re.compile(r"T:`([a-z0-9_]+)`")
_EXEMPTION_LINE = re.compile(r"^\| (G[0-9]+\.[0-9]+) \| `([a-z0-9_]+)` \| (.*?) \|$", re.MULTILINE)
_FAULT_LINE = re.compile(
    r"^\| (G[0-9]+\.[0-9]+) \| `([a-z0-9_]+)` \| [^|]+ \| ([^|]+) \| [0-9]+ \| [^|]+ \|$", re.MULTILINE
)
_PARTLY = "## Partly proven"


@dataclass(frozen=True, order=True)
class Promise:
    """One `T:` name of one line of docs/guarantees.md."""

    id: str
    test: str


@dataclass(frozen=True)
class Exemption:
    """One row of docs/guarantees-pending.md; `is_partial` when a test exists but proves only a part."""

    promise: Promise
    reason: str
    is_partial: bool


@dataclass(frozen=True)
class Claim:
    """One `@guarantee` on one test; `count` is how often the test repeats its scenario, where it says so."""

    promise: Promise
    count: int | None
    path: Path
    function: str


def guarantee(id: str, name: str, *, count: int | None = None) -> Callable[[Test], Test]:  # noqa: A002 - the public word
    """Mark a test as the proof, or part of it, of the promise `id` under the name docs/guarantees.md gives it.

    May be used several times on one test. Adds the pytest marks of the section and the promise, `G3` and `G3_2`
    for "G3.2".

    Args:
        id: Id of the promise, like "G3.2".
        name: The `T:` name of the promise this test proves.
        count: How often the test repeats its scenario, when that is part of the promise.

    Raises:
        ValueError: The id, the name or the count does not have the right form.
    """
    if not _ID.fullmatch(id) or not _NAME.fullmatch(name):
        raise ValueError(f'a guarantee is written like @guarantee("G3.2", "test_name"), not ({id!r}, {name!r})')
    if count is not None and count < 1:
        raise ValueError(f"a guarantee's count is at least 1, not {count}")
    section, promise = (getattr(pytest.mark, mark) for mark in _marks(id))

    def mark(test: Test) -> Test:
        return section(promise(test))

    return mark


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of every promise, so that --strict-markers accepts them and nothing else."""
    document = config.rootpath / PROMISES
    if not document.is_file():
        return
    names = {mark for promise in promises(document.read_text("utf-8")) for mark in _marks(promise.id)}
    for name in sorted(names):
        config.addinivalue_line("markers", f"{name}: proves a promise of {PROMISES}")


def promises(document: str) -> list[Promise]:
    """Return the promises in the text of docs/guarantees.md, in its order."""
    return [Promise(line[1], test) for line in _PROMISE_LINE.finditer(document) for test in _TEST_NAME.findall(line[2])]


def exemptions(document: str) -> list[Exemption]:
    """Return the rows in the text of docs/guarantees-pending.md, in its order."""
    split = document.find(_PARTLY)
    return [
        Exemption(Promise(row[1], row[2]), row[3].strip(), is_partial=0 <= split < row.start())
        for row in _EXEMPTION_LINE.finditer(document)
    ]


def claims(root: Path) -> list[Claim]:
    """Return what the test files under `root` claim, read from their text without importing them.

    Raises:
        ValueError: The arguments of a `@guarantee` are neither literals nor constants of its module.
    """
    files = sorted(path for folder in TEST_FOLDERS for path in (root / folder).rglob("*.py"))
    return [claim for path in files for claim in _claims_of(path, root)]


def disagreements(root: Path) -> list[str]:
    """Return one sentence for each place where promises, pending rows and tests differ; empty when all agree."""
    promised = promises((root / PROMISES).read_text("utf-8"))
    exempt = exemptions((root / PENDING).read_text("utf-8"))
    claimed = {claim.promise for claim in claims(root)}
    known = set(promised)
    open_rows = {row.promise for row in exempt if not row.is_partial}
    partial_rows = {row.promise for row in exempt if row.is_partial}
    return [
        *(f"{_text(one)} has no test and no row in {PENDING}" for one in promised if one not in claimed | open_rows),
        *(f"{_text(one)} is claimed by a test but not promised" for one in sorted(claimed - known)),
        *(
            f"{_text(one)} is listed in {PENDING} but not promised"
            for one in sorted((open_rows | partial_rows) - known)
        ),
        *(f"{_text(one)} has a test: remove it from the pending rows" for one in sorted(open_rows & claimed)),
        *(f"{_text(one)} is listed as partly proven but has no test" for one in sorted(partial_rows - claimed)),
        *(f"{_text(row.promise)} is listed without a reason" for row in exempt if not row.reason),
    ]


def planted_faults(document: str) -> dict[Promise, tuple[int, int]]:
    """Return how many planted faults of each promise were found, and of how many, from the text of docs/mutants.md."""
    found: dict[Promise, tuple[int, int]] = {}
    for row in _FAULT_LINE.finditer(document):
        promise = Promise(row[1], row[2])
        killed, planted = found.get(promise, (0, 0))
        found[promise] = (killed + row[3].startswith("killed"), planted + 1)
    return found


def report(root: Path) -> str:
    """Return the table `make guarantees` prints: one line per promise, its state, its tests or why there are none.

    A promise with planted faults also says how many of them its tests found when `make mutants` ran last.
    """
    promised = promises((root / PROMISES).read_text("utf-8"))
    exempt = {row.promise: row for row in exemptions((root / PENDING).read_text("utf-8"))}
    found: dict[Promise, list[Claim]] = {}
    for claim in claims(root):
        found.setdefault(claim.promise, []).append(claim)
    faults = planted_faults((root / MUTANTS).read_text("utf-8")) if (root / MUTANTS).is_file() else {}
    rows = [_row(one, found.get(one, []), exempt.get(one), faults.get(one)) for one in promised]
    proven, partial = (sum(row[2] == state for row in rows) for state in ("proven", "partly"))
    total = f"{len(rows)} promised: {proven} proven, {partial} partly, {len(rows) - proven - partial} pending"
    return "\n".join([*(f"{name:<6}  {test:<34}  {state:<7}  {note}" for name, test, state, note in rows), "", total])


def _marks(id: str) -> tuple[str, str]:  # noqa: A002 - as in `guarantee`
    return id.partition(".")[0], id.replace(".", "_")


def _text(promise: Promise) -> str:
    return f"{promise.id} {promise.test}"


def _row(
    promise: Promise, found: list[Claim], exempt: Exemption | None, faults: tuple[int, int] | None
) -> tuple[str, str, str, str]:
    if not found:
        return promise.id, promise.test, "pending" if exempt else "MISSING", exempt.reason if exempt else ""
    counts = [claim.count for claim in found if claim.count is not None]
    tests = ", ".join(f"{claim.path}::{claim.function}" for claim in found)
    note = tests + (f" ({max(counts)} times)" if counts else "")
    note += f"; {faults[0]} of {faults[1]} planted faults found" if faults else ""
    if exempt is None:
        return promise.id, promise.test, "proven", note
    return promise.id, promise.test, "partly", f"{note}; {exempt.reason}"


def _claims_of(path: Path, root: Path) -> Iterator[Claim]:
    module = ast.parse(path.read_text("utf-8"), str(path))
    constants = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in _tests_of(module):
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and _callee(decorator.func) == "guarantee":
                yield _claim(decorator, constants, path.relative_to(root), node.name)


def _tests_of(body: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        if isinstance(node, ast.ClassDef):
            yield from _tests_of(node)


def _callee(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _claim(call: ast.Call, constants: dict[str, ast.expr], path: Path, function: str) -> Claim:
    values: dict[str, object] = {}
    arguments = [*zip(("id", "name"), call.args, strict=False), *((word.arg, word.value) for word in call.keywords)]
    for name, given in arguments:
        value = constants.get(given.id, given) if isinstance(given, ast.Name) else given
        if name is None or not isinstance(value, ast.Constant):
            raise ValueError(f"{path}:{call.lineno}: @guarantee takes literals or constants of its module")
        values[name] = value.value
    id_, test, count = values.get("id"), values.get("name"), values.get("count")
    if not isinstance(id_, str) or not isinstance(test, str) or not isinstance(count, int | None):
        raise ValueError(f"{path}:{call.lineno}: @guarantee takes an id, a test name and perhaps a count")
    return Claim(Promise(id_, test), count, path, function)


def _main() -> int:
    root = Path.cwd()
    print(report(root))  # noqa: T201 - this is the command's output
    problems = disagreements(root)
    for problem in problems:
        print(f"disagreement: {problem}", file=sys.stderr)  # noqa: T201 - this is the command's output
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(_main())
