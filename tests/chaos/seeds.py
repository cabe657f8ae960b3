"""Many seeds of the simulation, one after the other, on a database of their own: shard s."""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from apothic_server.store.launcher import EmbeddedPostgres
from apothic_server.store.migrate import prepare_store
from apothic_server.testing.postgres import run_sql, scratch_place

from .report import Report
from .run import commit
from .simulation import ACTIONS, Simulation

TEMPLATE = "seeds_template"
SEED_DEADLINE_S = 120.0


class Seeds:
    """So many seeds from one on, or as many as fit into a time.

    Args:
        folder: For the simulated clouds.
        budget_s: No further seed begins after so long.
    """

    def __init__(self, first, folder, *, count, budget_s):
        self._first, self._count, self._budget_s = first, count, budget_s
        self._folder = folder
        self._report = SeedsReport(title="simulation", seed=first, commit=commit(), jobs=0, planned=count)

    async def run(self):
        """Return the report."""
        began = time.monotonic()
        place = Path(tempfile.mkdtemp(prefix="apothic-seeds-", dir=scratch_place()))
        server = EmbeddedPostgres(place)
        try:
            address = await server.start()
            await run_sql(address, f"CREATE DATABASE {TEMPLATE}")
            await prepare_store(address.with_database(TEMPLATE))
            for number in range(self._count):
                if time.monotonic() - began > self._budget_s:
                    break
                await self._one((self._first + number) % 2**64, address)
        finally:
            await server.stop()
            shutil.rmtree(place)
        self._report.took_s = time.monotonic() - began
        return self._report

    async def _one(self, seed, address):
        folder, name = self._folder / str(seed), f"seed_{seed}"
        folder.mkdir()
        await run_sql(address, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        simulation = Simulation(seed, address.with_database(name), folder)
        try:
            async with asyncio.timeout(SEED_DEADLINE_S):
                found = await simulation.run()
        except Exception as error:  # whatever it is, it belongs to this seed
            found = [repr(error)]
        await run_sql(address, f"DROP DATABASE {name} WITH (FORCE)")
        self._report.seeds += 1
        self._report.jobs += len(simulation.world.history.accepted)
        self._report.executions += len(simulation.world.executions)
        self._report.violations += [f"seed {seed}: {violation}" for violation in found]
        if found:
            (folder / "trace").write_text("\n".join(simulation.world.trace))
        else:
            shutil.rmtree(folder)


class SeedsReport(Report):
    """The report of a run of seeds, which has no faults of its own to count."""

    seeds = 0

    @property
    def invalid(self):
        """Fewer seeds than were asked for prove less; the report says how many there were."""
        return [] if self.seeds else ["no seed was run"]

    def __str__(self):
        last = (self.seed + max(self.seeds - 1, 0)) % 2**64
        verdict = "VIOLATED" if self.violations else "INVALID: no seed was run" if self.invalid else "GOOD"
        return "\n".join(
            [
                f"{self.title}: commit {self.commit}, {self.took_s:.0f} s",
                f"  seeds      {self.seeds} of {self.planned}: {self.seed} to {last}, {ACTIONS} actions each",
                f"  jobs       {self.jobs} accepted, {self.executions} runs of user code",
                f"  violations {len(self.violations)}",
                *(f"    {violation}" for violation in self.violations[:50]),
                f"  verdict    {verdict}",
            ]
        )
