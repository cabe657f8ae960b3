"""The harness finds what is wrong: planted bugs turn the simulation red, and a real cloud."""

import pytest

from apothic_server.testing.postgres import run_sql

from .planted import PLANTED
from .simulation import Simulation
from .trials import violated

pytestmark = pytest.mark.anyio

SEEDS_MAX = 20
ACTIONS = 150


@pytest.mark.parametrize("name", [name for name, bug in PLANTED.items() if bug.is_simulated])
async def test_a_planted_bug_is_found(name, postgres_server, tmp_path):
    bug, found, seed = PLANTED[name], set(), 0
    while not found & bug.finds and seed < SEEDS_MAX:
        found |= await _violated(bug, seed, postgres_server, tmp_path / str(seed))
        seed += 1

    assert found & bug.finds, f"{SEEDS_MAX} seeds found only {sorted(found)}"


@pytest.mark.parametrize("name", ["key that is forgotten"])
async def test_a_real_cloud_with_a_planted_bug_turns_red(name, tmp_path):
    """One that shows soon; `make chaos-planted` tries the others."""
    assert await violated(name, tmp_path) & PLANTED[name].finds


async def _violated(bug, seed, server, folder):
    """Run a seed on a database of its own; return the invariants that it broke, or the name of an error."""
    folder.mkdir()
    admin, name = server.with_database("postgres"), f"planted_{seed}"
    await run_sql(admin, f"CREATE DATABASE {name} TEMPLATE template_apothic")
    try:
        with bug.planted():
            simulation = Simulation(seed, server.with_database(name), folder, actions=ACTIONS, settle_s=240)
            return {violation.invariant for violation in await simulation.run()}
    except Exception as error:
        return {type(error).__name__}
    finally:
        await run_sql(admin, f"DROP DATABASE {name} WITH (FORCE)")
