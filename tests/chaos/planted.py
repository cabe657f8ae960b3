"""Known bugs, planted into the running code by the harness alone, which has to find each of them.

They are the bugs that systems of this kind have had: an answer before the commit, an index counted beside the row, a
slot that is not given back, a live worker taken for a dead one.
"""

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls
from apothic_server.services.dispatch.recovery import Recovery
from apothic_server.services.links import Links
from apothic_server.store import flush
from apothic_server.store.writer import Writer


@dataclass(frozen=True)
class Bug:
    """One bug: where it is put, and what is put there.

    Attributes:
        owner: Class or module whose attribute is replaced.
        name: That attribute.
        make: Makes the broken one from the right one.
        finds: Invariants that tell of it.
        is_of_worker: It lives in the worker, not in the server.
    """

    owner: Any
    name: str
    make: Any
    finds: frozenset[str]
    is_of_worker: bool = False

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


def _answered_before_commit(append):
    def append_and_answer(self, record):
        append(self, record).add_done_callback(_look_at)
        return _done(True)

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


def _done(value):
    future = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def _look_at(future):
    if not future.cancelled():
        future.exception()


PLANTED = {
    "answered before the commit": Bug(Writer, "append", _answered_before_commit, frozenset({"I1"})),
    "cancel without compare": Bug(Calls, "cancel", _cancel_without_compare, frozenset({"I1"})),
    "index beside the row": Bug(flush, "SQL", _index_beside_the_row, frozenset({"I1", "I5", "I2"})),
    "slot leak": Bug(Board, "release", _slot_leak, frozenset({"I2", "G2.7"})),
    "granted twice": Bug(Links, "closed", _granted_twice, frozenset({"I4"})),
    "start that reads nothing": Bug(Recovery, "_sweep_page", _forgetful_start, frozenset({"I2"})),
}
