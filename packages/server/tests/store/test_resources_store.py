"""Apps, keys, archives, workers and the dispatcher's row."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.ids import AppId, DeploymentId, FunctionId, IncarnationId, KeyId, OrgId, make_key
from apothic.wire.link import Machine
from apothic_server.domain.access import Role
from apothic_server.store import apps, archives, deployments, dispatcher, keys, recovery, workers
from apothic_server.store.database import Database
from apothic_server.testing.records import NOW

pytestmark = pytest.mark.anyio
ALPHA, BETA = OrgId(make_key(0, 1)), OrgId(make_key(0, 2))
ARCHIVE = "ab" * 32
MACHINE = Machine("host", "sandbox", ["pid"], ["memory"], {"cpu": "no cgroup"}, 2.0, 1024, ["3.11"])


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Database]:
    async with database.system_unit() as unit:
        for org, slug in ((ALPHA, "alpha"), (BETA, "beta")):
            await keys.create_org(unit, org, slug, NOW)
            await archives.insert_archive(unit, org, ARCHIVE, 10, NOW)
    yield database


def deployment(number: int, *names: str, app: str = "shop", org: OrgId = ALPHA) -> apps.NewDeployment:
    return apps.NewDeployment(
        id=DeploymentId(make_key(2, number)),
        org=org,
        app_name=app,
        app_id=AppId(make_key(3, number)),
        archive=ARCHIVE,
        manifest=Manifest("shop", "app", "3.11", "0.1.0", tuple(FunctionSpec(name, cpu=number) for name in names)),
        function_ids={name: FunctionId(make_key(4, number * 100 + place)) for place, name in enumerate(names)},
        created_by=KeyId(make_key(0, 3)),
        created_at=NOW,
    )


async def deploy(store: Database, new: apps.NewDeployment):
    async with store.request_unit(new.org) as unit:
        return (await apps.create_deployment(unit, new))[0]


async def test_the_first_deploy_makes_the_app(store):
    made = await deploy(store, deployment(1, "pay", "ask"))
    async with store.request_unit(ALPHA) as unit:
        app = await apps.get_app(unit, ALPHA, "shop")
        assert await apps.get_deployment(unit, ALPHA, made.id) == made

    assert (made.version, made.status, made.archive, set(made.functions)) == (1, "active", ARCHIVE, {"pay", "ask"})
    assert (app.app.active, app.version, app.functions) == (made.id, 1, ("ask", "pay"))


async def test_a_function_keeps_its_id_over_deployments(store):
    first = await deploy(store, deployment(1, "pay", "ask"))
    second = await deploy(store, deployment(2, "pay", "tell"))
    async with store.request_unit(ALPHA) as unit:
        pay = await apps.find_function(unit, ALPHA, "shop", "pay")
        assert await apps.get_function(unit, ALPHA, pay.id) == pay
        assert await apps.get_function(unit, ALPHA, first.functions["ask"]) is None
        assert await apps.find_function(unit, ALPHA, "shop", "ask") is None
        assert await apps.function_names(unit, ALPHA, "shop") == ["pay", "tell"]
        assert (await apps.get_deployment(unit, ALPHA, first.id)).status == "superseded"

    assert second.version == 2
    assert second.functions["pay"] == first.functions["pay"] == pay.id
    assert (pay.deployment, pay.spec.cpu, pay.app_name, pay.module) == (second.id, 2, "shop", "shop")


async def test_two_deploys_of_one_app_at_once_follow_each_other(store):
    made = await asyncio.gather(*[deploy(store, deployment(number, "pay")) for number in range(1, 7)])
    async with store.request_unit(ALPHA) as unit:
        app = await apps.get_app(unit, ALPHA, "shop")

    assert sorted(one.version for one in made) == [1, 2, 3, 4, 5, 6]
    assert len({one.functions["pay"] for one in made}) == 1
    assert app.app.active == max(made, key=lambda one: one.version).id


async def test_the_deployments_of_an_app_are_listed_by_version_whatever_their_ids(store):
    for number in (3, 1, 4, 2):
        await deploy(store, deployment(number, "pay"))
    await deploy(store, deployment(5, "pay", app="other"))
    pages = []
    async with store.request_unit(ALPHA) as unit:
        while not pages or pages[-1]:
            before = pages[-1][-1].id if pages else None
            pages.append(await deployments.list_deployments(unit, ALPHA, app_name="shop", before=before, limit=3))
        every = await deployments.list_deployments(unit, ALPHA, app_name=None, before=None, limit=10)

    assert [[entry.version for entry in page] for page in pages] == [[4, 3, 2], [1], []]
    assert [entry.id for entry in every] == [DeploymentId(make_key(2, number)) for number in (5, 4, 3, 2, 1)]


async def test_apps_are_listed_in_pages_of_one_org(store):
    for number in range(1, 6):
        await deploy(store, deployment(number, "pay", app=f"app-{number}"))
    await deploy(store, deployment(9, "pay", app="foreign", org=BETA))
    async with store.request_unit(ALPHA) as unit:
        first = await apps.list_apps(unit, ALPHA, limit=3)
        rest = await apps.list_apps(unit, ALPHA, after=first[-1].app.id, limit=3)
        names = await apps.app_names(unit, ALPHA)

    assert [found.app.name for found in first + rest] == names == [f"app-{number}" for number in range(1, 6)]


async def test_things_of_another_org_are_not_there(store):
    made = await deploy(store, deployment(1, "pay"))
    async with store.system_unit() as unit:
        found = [
            await apps.get_app(unit, BETA, "shop"),
            await apps.function_names(unit, BETA, "shop"),
            await apps.get_deployment(unit, BETA, made.id),
            await apps.get_function(unit, BETA, made.functions["pay"]),
            await apps.find_function(unit, BETA, "shop", "pay"),
        ]

    assert found == [None] * 5


async def test_an_archive_belongs_to_one_org(store):
    async with store.request_unit(ALPHA) as unit:
        assert await archives.insert_archive(unit, ALPHA, "cd" * 32, 5, NOW)
        assert not await archives.insert_archive(unit, ALPHA, "cd" * 32, 5, NOW)
        assert await archives.archive_size(unit, ALPHA, "cd" * 32) == 5
    async with store.system_unit() as unit:
        assert await archives.archive_size(unit, BETA, "cd" * 32) is None


async def test_a_key_is_found_by_its_digest_until_it_is_revoked(store):
    key = keys.StoredKey(
        id=KeyId(make_key(5, 1)),
        org=BETA,
        kind="lk",
        name="ci",
        prefix="lk_abcd",
        last4="wxyz",
        role=Role.MEMBER,
        scopes=frozenset({"jobs:read", "apps:read"}),
        created_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )
    async with store.system_unit() as unit:
        await keys.insert_key(unit, key, b"digest")
        assert await keys.key_by_digest(unit, b"digest") == key
        assert await keys.key_by_digest(unit, b"other") is None
        assert await keys.get_key(unit, ALPHA, key.id) is None
        assert not await keys.revoke_key(unit, ALPHA, key.id, NOW)
        assert await keys.revoke_key(unit, BETA, key.id, NOW)
        revoked = await keys.key_by_digest(unit, b"digest")
        assert (await keys.count_orgs(unit), await keys.first_org(unit), await keys.org_slug(unit, BETA)) == (
            2,
            ALPHA,
            "beta",
        )

    assert key.is_valid(NOW)
    assert not key.is_valid(NOW + timedelta(days=1))
    assert not revoked.is_valid(NOW)


async def hello(unit, number: int, *, org: OrgId = ALPHA, lease_s: int = 30) -> bool:
    return await workers.record_hello(
        unit,
        org=org,
        worker=IncarnationId(make_key(6, number)),
        name="box",
        machine=MACHINE,
        now=NOW,
        lease_expires_at=NOW + timedelta(seconds=lease_s),
    )


async def test_a_lease_ends_unless_it_is_renewed(store):
    first, second = (IncarnationId(make_key(6, number)) for number in (1, 2))
    async with store.system_unit() as unit:
        assert await hello(unit, 1)
        assert await hello(unit, 2)
        assert await workers.renew_lease(unit, ALPHA, second, NOW + timedelta(seconds=60))
        assert not await workers.renew_lease(unit, BETA, second, NOW + timedelta(seconds=90))
        live = await recovery.live_workers(unit)

    assert live == {first: NOW + timedelta(seconds=30), second: NOW + timedelta(seconds=60)}


async def test_incarnations_end_unless_they_were_renewed_since_somebody_looked(store):
    first, second = (IncarnationId(make_key(6, number)) for number in (1, 2))
    async with store.system_unit() as unit:
        assert await hello(unit, 1)
        assert await hello(unit, 2)
        seen = await recovery.live_workers(unit)
        assert await workers.renew_lease(unit, ALPHA, second, NOW + timedelta(seconds=60))
        ended = await recovery.end_workers(unit, seen, NOW)
        again = await recovery.end_workers(unit, seen, NOW)
        left = await recovery.live_workers(unit)

    assert (ended, again) == ({first}, set())
    assert list(left) == [second]


async def test_an_ended_incarnation_never_comes_back(store):
    worker = IncarnationId(make_key(6, 1))
    async with store.system_unit() as unit:
        assert await hello(unit, 1)
        assert await hello(unit, 1)
        assert not await hello(unit, 1, org=BETA)
        assert await workers.end_worker(unit, ALPHA, worker, "drained", NOW)
        assert not await workers.end_worker(unit, ALPHA, worker, "again", NOW)
        assert not await workers.renew_lease(unit, ALPHA, worker, NOW)
        assert not await hello(unit, 1)
        before = await workers.list_workers(unit, ALPHA, ended_after=NOW - timedelta(seconds=1))
        after = await workers.list_workers(unit, ALPHA, ended_after=NOW)

    assert [(found.id, found.ended_reason) for found in before] == [(worker, "drained")]
    assert after == []


async def test_one_process_dispatches_at_a_time(store):
    async with store.system_unit() as unit:
        assert await dispatcher.get_dispatcher(unit) is None
        assert await dispatcher.take_term(unit, holder="a", url="http://a") == 1
        assert await dispatcher.take_term(unit, holder="b", url="http://b") is None
        assert await dispatcher.renew_term(unit, term=1, holder="a")
        assert await dispatcher.take_term(unit, holder="a", url="http://a") == 2
        assert not await dispatcher.renew_term(unit, term=1, holder="a")
        assert await dispatcher.release_term(unit, term=2, holder="a")
        assert await dispatcher.take_term(unit, holder="b", url="http://b") == 3
        assert not await dispatcher.release_term(unit, term=2, holder="a")
        assert await dispatcher.get_dispatcher(unit) == dispatcher.Dispatcher(3, "b", "http://b", True)


async def test_a_term_that_ran_out_is_taken_by_another(store):
    async with store.system_unit() as unit:
        await dispatcher.take_term(unit, holder="a", url="", lease=timedelta(seconds=-1))
        assert not (await dispatcher.get_dispatcher(unit)).is_live
        assert await dispatcher.take_term(unit, holder="b", url="") == 2
