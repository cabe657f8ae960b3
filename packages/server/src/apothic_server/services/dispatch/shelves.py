"""Which environments workers have: asked of them all at once, because they alone know; removed by the same question."""

from __future__ import annotations

import asyncio
import math
import re

from apothic.wire.ids import OrgId
from apothic.wire.images import ENVIRONMENTS_TOLD_MAX, HeldImage, ImagesTidied, TidyImages
from apothic_server.domain.fleet import Worker
from apothic_server.services.dispatch.board import Board

_ENVIRONMENT = re.compile(r"[0-9a-f]{32}")
BYTES_MAX = 2**53
SECONDS_MAX = 2**35
"""What a worker may say; more is a mistake."""


class Shelves:
    """Asks workers and takes in their answers."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._numbers = 0
        self._asked: dict[int, tuple[Worker, asyncio.Future[ImagesTidied]]] = {}

    async def ask(
        self, org: OrgId, *, keep: list[str] | None, timeout_s: float
    ) -> tuple[list[tuple[str, ImagesTidied]], list[str]]:
        """Return what each linked worker says of the environments of an org, by its name, and who did not answer.

        Args:
            keep: Those that may not be removed; None removes none.
        """
        numbers: list[int] = []
        loop = asyncio.get_running_loop()
        for worker in list(self._board.fleet.workers.values()):
            if worker.is_linked and not worker.is_removed:
                self._numbers += 1
                numbers.append(self._numbers)
                self._asked[self._numbers] = (worker, loop.create_future())
                self._board.send(worker, "tidy_images", TidyImages(self._numbers, org, keep))
        try:
            if numbers:
                await asyncio.wait([self._asked[number][1] for number in numbers], timeout=timeout_s)
        finally:
            asked = [self._asked.pop(number) for number in numbers]
        told = [(worker, answer.result()) for worker, answer in asked if answer.done()]
        for worker, answer in told:
            _forget(worker, org, answer)
        silent = sorted(worker.name for worker, answer in asked if not answer.done())
        return [(worker.name, answer) for worker, answer in told], silent

    def answered(self, worker: Worker, item: ImagesTidied) -> None:
        """Take in an answer; one that nobody waits for, or that cannot be, is passed over."""
        asked = self._asked.get(item.number)
        if asked is not None and asked[0] is worker and not asked[1].done() and _is_possible(item):
            asked[1].set_result(item)


def _forget(worker: Worker, org: OrgId, answer: ImagesTidied) -> None:
    """What was removed is not ready any more; whoever needs it has it made ready again."""
    removed = {one.environment for one in answer.items if one.is_removed}
    for key, asked in list(worker.environments.items()):
        if asked.org == org and asked.is_done and key[1] in removed:
            del worker.environments[key]


def _is_possible(item: ImagesTidied) -> bool:
    return (
        len(item.items) <= ENVIRONMENTS_TOLD_MAX
        and 0 <= item.freed_bytes <= BYTES_MAX
        and all(_is_possible_environment(one) for one in item.items)
    )


def _is_possible_environment(one: HeldImage) -> bool:
    times = (one.built_at, one.used_at)
    return (
        _ENVIRONMENT.fullmatch(one.environment) is not None
        and 0 <= one.size_bytes <= BYTES_MAX
        and all(math.isfinite(at) and 0 <= at <= SECONDS_MAX for at in times)
    )
