"""The dispatcher's upkeep: its role, due retries, time limits, idle runners, leases that ran out, rows nobody holds."""

from __future__ import annotations

from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.cordons import Cordons
from apothic_server.services.dispatch.crash_loops import CrashLoops
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.items import ItemFlows
from apothic_server.services.dispatch.recovery import Recovery
from apothic_server.services.dispatch.role import Role
from apothic_server.services.dispatch.time_limits import TimeLimits
from apothic_server.services.peers import Peers

IDLE_RUNNER_S = 300.0
"""A runner without work is ended after this long."""


class Upkeep:
    """Steps of the dispatcher's loops."""

    def __init__(
        self,
        board: Board,
        grants: Grants,
        recovery: Recovery,
        time_limits: TimeLimits,
        crash_loops: CrashLoops,
        flows: ItemFlows,
        role: Role,
        peers: Peers,
        cordons: Cordons,
    ) -> None:
        self._board = board
        self._grants = grants
        self._recovery = recovery
        self._time_limits = time_limits
        self._crash_loops = crash_loops
        self._flows = flows
        self._role = role
        self._peers = peers
        self._cordons = cordons

    async def role(self) -> float | None:
        """Say that this process lives, see who else does; renew the dispatcher's term or try to take it (D4)."""
        await self._peers.renew()
        self._board.is_shared = self._peers.had_others
        await self._role.hold()
        return None

    async def tell(self) -> float | None:
        """Tell the other processes what was committed here."""
        await self._peers.send()
        return None

    async def retries(self) -> float | None:
        """Queue retries whose time has come, end pauses of functions that crash, and grant what fits."""
        waits_s = [wait_s for wait_s in (self._board.promote_due(), self._crash_loops.resume()) if wait_s is not None]
        self._grants.grant_ready()
        return min(waits_s, default=None)

    async def limits(self) -> float | None:
        """End jobs whose time is over (G4.3)."""
        return self._time_limits.enforce()

    async def reload(self) -> float | None:
        """Read jobs again whose records were refused."""
        await self._recovery.reload_requested()
        self._flows.go_on()
        return None

    async def sweep(self) -> float | None:
        """End leases that ran out, find unfinished rows that no memory holds (G1.2), and obey orders about workers."""
        await self._recovery.sweep()
        await self._cordons.refresh()
        return None

    async def idle_runners(self) -> float | None:
        """End runners that were idle for `IDLE_RUNNER_S`, or are idle where nothing new goes."""
        now = self._board.clock.monotonic()
        for runner in list(self._board.fleet.runners.values()):
            idle_s = 0.0 if runner.worker.is_cordoned else IDLE_RUNNER_S
            if runner.is_idle and now - runner.idle_since >= idle_s:
                self._grants.stop_runner(runner)
        return None
