"""Known bugs, planted into the running code by the harness alone, which has to find each of them.

They are the bugs that systems of this kind have had: an answer before the commit, an index counted beside the row, a
slot that is not given back, a live worker taken for a dead one.
"""

import asyncio
import math
import random
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from apothic.wire.chunks import ERROR, pack, unpack
from apothic_server.services.dispatch import reports
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls
from apothic_server.services.dispatch.leases import Leases
from apothic_server.services.dispatch.maps import Maps
from apothic_server.services.dispatch.recovery import Recovery
from apothic_server.services.jobs import Jobs
from apothic_server.services.links import Links
from apothic_server.store import flush, live_groups
from apothic_server.store.writer import Writer
from apothic_worker.control_link import ControlLink


@dataclass(frozen=True)
class Trial:
    """A small real run in which a bug has to show.

    Attributes:
        faults: Place, seconds, and whether connections are reset in the end.
        failpoints: Armed at each start of the server.
        grace_s: `disconnect_grace_s`, where the work is spread.
        long_s: From and to, in seconds: every call lasts so long, and few are made at once, so that one which is given
            away begins elsewhere at once.
        rate: Calls a second at most.
        items: Of each map, when the work is maps; `jobs` counts items then.
    """

    jobs: int = 150
    faults: tuple[tuple[str, float, bool], ...] = ()
    is_spread: bool = False
    failpoints: str = ""
    grace_s: float = 4.0
    long_s: tuple[float, float] | None = None
    rate: float = 120.0
    items: int = 0


@dataclass(frozen=True)
class Bug:
    """One bug: where it is put, and what is put there.

    Attributes:
        owner: Class or module whose attribute is replaced.
        name: That attribute.
        make: Makes the broken one from the right one.
        finds: Invariants that tell of it.
        is_of_worker: It lives in the worker, not in the server.
        trial: The real run that finds it; None when only the simulation does.
        is_simulated: The simulation finds it.
    """

    owner: Any
    name: str
    make: Any
    finds: frozenset[str]
    is_of_worker: bool = False
    trial: Trial | None = None
    is_simulated: bool = True

    def plant(self):
        """Put it in; returns what takes it out again."""
        right = getattr(self.owner, self.name)
        setattr(self.owner, self.name, self.make(right))
        return lambda: setattr(self.owner, self.name, right)

    @contextmanager
    def planted(self):
        """Put it in until the block ends."""
        take_out = self.plant()
        try:
            yield
        finally:
            take_out()


def _answered_before_commit(append_told):
    def append_and_answer(self, record, on_answer, **rest):
        append_told(self, record, lambda _: None, **rest)
        asyncio.get_running_loop().call_soon(on_answer, True)

    return append_and_answer


def _cancel_without_compare(cancel):
    def cancel_and_answer(self, job, *rest):
        cancel(self, job, *rest).add_done_callback(_look_at)
        return _done(True)

    return cancel_and_answer


def _index_beside_the_row(statements):
    right = statements["change_jobs"]
    assert right.count("moved.first_index + event.place - 1") == 1
    beside = "(SELECT count(*) FROM events AS one WHERE one.stream = moved.id) + 2 * event.place - 2"
    return {**statements, "change_jobs": right.replace("moved.first_index + event.place - 1", beside)}


def _slot_leak(release):
    def release_and_keep(self, job):
        runner = job.runner
        release(self, job)
        if runner is not None and job.losses:
            runner.attempts.add(job.id)

    return release_and_keep


def _granted_twice(closed):
    def closed_is_dead(self, worker, link):
        closed(self, worker, link)
        self._reports.worker_lost(worker, "its link closed")

    return closed_is_dead


def _forgetful_start(_):
    async def look_at_nothing(self):
        self._swept_to = None

    return look_at_nothing


def _keyless(submit):
    async def submit_without_key(self, *args, key=None, **named):
        return await submit(self, *args, key=None, **named)

    return submit_without_key


def _fenceless(_):
    def go_on(self):
        """Cut off, and user code runs on."""

    return go_on


def _hasty(after):
    def stop_at_once(self, reason):
        if self._obeys is not None and self.state.session is not None:
            self._obeys.guard(math.inf, self.state.session)
        after(self, reason)

    return stop_at_once


def _impatient(over):
    def half_as_long(self, live):
        for worker in self._board.fleet.workers.values():
            worker.lease_expires_at -= self._grace_s / 2
        try:
            return over(self, live)
        finally:
            for worker in self._board.fleet.workers.values():
                worker.lease_expires_at += self._grace_s / 2

    return half_as_long


def _hoarder(append_told):
    kept = []

    def append_and_keep(self, record, on_answer, **rest):
        kept.append(bytearray(random.randbytes(16_384)))
        append_told(self, record, on_answer, **rest)

    return append_and_keep


def _other_numbers(checked):
    """Outcomes of a chunk that did not come to its end are each recorded under the number of the one before."""

    def checked_and_turned(item, job):
        item, part = checked(item, job)
        if item.value is None or part.done in (1, job.covers.count):
            return item, part
        first, *others = unpack(item.value.data)
        entries = [*others, first]
        failed = tuple(place for place, entry in enumerate(entries) if entry[:1] == ERROR)
        value = replace(item.value, data=pack(entries))
        return replace(item, value=value), replace(part, failed=failed)

    return checked_and_turned


def _kept_for_good(_):
    def give_nothing_back(self, group, begin, end, *, alone):
        """Items that were not executed are forgotten."""

    return give_nothing_back


def _forgets_uncut(uncovered):
    async def without_the_last(*where, uploaded):
        gaps = await uncovered(*where, uploaded=uploaded)
        return [gap for gap in gaps if gap[1] < uploaded]

    return without_the_last


def _done(value):
    future = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def _look_at(future):
    if not future.cancelled():
        future.exception()


KILLED = (("server", 0.0, False),) * 6
SHORT = Trial(24, (("cut", 0.1, True),) * 3, True, long_s=(3.0, 6.0))
MIDDLE = Trial(24, (("cut", 2.0, True),) * 3, True, long_s=(3.0, 6.0))
BEYOND = Trial(12, (("hang", 12.0, False),) * 2, True, long_s=(8.0, 12.0))
"""The machine is cut off for three graces, in the middle of calls that last two or three."""

HALFWAY = Trial(12, (("hang", 22.0, False),) * 2, True, grace_s=30.0, long_s=(26.0, 30.0))
"""It is cut off for less than a grace, so long that a worker which stops its work by itself would have."""

SLOW_DISK = "writer.taken=delay:0.05"
SLOWLY_KILLED = Trial(400, KILLED, failpoints=SLOW_DISK)
AT_CANCEL = Trial(200, (("server-at-cancel", 0.0, False),) * 4, failpoints=SLOW_DISK)
MAPS = Trial(1_500, (("server", 0.0, False), ("user", 0.0, False)) * 3, items=400)
I1, I2, I4 = frozenset({"I1"}), frozenset({"I2"}), frozenset({"I4"})

PLANTED = {
    "answered before the commit": Bug(Writer, "append_told", _answered_before_commit, I1, trial=SLOWLY_KILLED),
    "cancel without compare": Bug(Calls, "cancel", _cancel_without_compare, I1, trial=AT_CANCEL),
    "index beside the row": Bug(flush, "SQL", _index_beside_the_row, frozenset({"I1", "I5", "I2"}), trial=Trial(40)),
    "slot leak": Bug(
        Board, "release", _slot_leak, frozenset({"I2", "G2.7"}), trial=Trial(200, (("worker", 0.0, False),) * 3)
    ),
    "granted twice": Bug(Links, "closed", _granted_twice, I4, trial=MIDDLE),
    "start that reads nothing": Bug(Recovery, "_sweep_page", _forgetful_start, I2, trial=Trial(200, KILLED)),
    "key that is forgotten": Bug(Jobs, "submit", _keyless, frozenset({"I11"}), trial=Trial(60), is_simulated=False),
    "worker that never stops itself": Bug(
        ControlLink, "_check_lease", _fenceless, I4, is_of_worker=True, trial=BEYOND, is_simulated=False
    ),
    "worker that stops itself at once": Bug(
        ControlLink,
        "_after",
        _hasty,
        frozenset({"G3.2"}),
        is_of_worker=True,
        trial=SHORT,
        is_simulated=False,
    ),
    "lease half as long": Bug(Leases, "over", _impatient, I4, trial=HALFWAY, is_simulated=False),
    "outcomes under other numbers": Bug(
        reports, "checked", _other_numbers, frozenset({"I1", "I18"}), trial=MAPS, is_simulated=False
    ),
    "items that are not given back": Bug(
        Maps, "_give_back", _kept_for_good, frozenset({"I1", "I2"}), trial=MAPS, is_simulated=False
    ),
    "start that forgets items": Bug(
        live_groups, "uncovered", _forgets_uncut, frozenset({"I1", "I18"}), trial=MAPS, is_simulated=False
    ),
    "memory that is kept": Bug(
        Writer, "append_told", _hoarder, frozenset({"I15"}), trial=Trial(3_000, rate=35.0), is_simulated=False
    ),
}
