"""The control plane in virtual time, many seeds; a failing seed, named by the test, replays exactly."""

import pytest

from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.postgres import run_sql

from .simulation import Simulation

pytestmark = pytest.mark.anyio

SEEDS = 24


@guarantee("G1.1", "job_terminal_once")
@guarantee("G1.2", "no_stuck_jobs")
@guarantee("G2.7", "slots_never_leak")
@guarantee("G2.7", "slots_never_exceeded")
@guarantee("G4.1", "cancel_linearizable")
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whatever_happens_jobs_keep_their_promises(seed, postgres, tmp_path):
    simulation = Simulation(seed, postgres, tmp_path)

    assert await simulation.run() == [], "\n".join([f"seed {seed}", *simulation.world.trace])


async def test_the_same_seed_gives_the_same_run(postgres, tmp_path_factory):
    def run_of(told):
        return [(one.job, one.status) for one in told.history.ended], told.trace

    worlds = []
    for _ in range(2):
        simulation = Simulation(7, postgres, tmp_path_factory.mktemp("cloud"), actions=40)
        assert await simulation.run() == []
        worlds.append(simulation.world)
        await _empty(postgres)

    assert run_of(worlds[0]) == run_of(worlds[1])


async def _empty(address):
    tables = "jobs, events, streams, stream_floors, workers, functions, deployments, apps, archives, api_keys, orgs"
    await run_sql(address, f"TRUNCATE {tables}, dispatcher CASCADE")
