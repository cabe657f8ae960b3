"""What deployments have, kept in memory."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.services import deployed
from apothic_server.services.deployed import DeployedFunctions

pytestmark = pytest.mark.anyio


async def test_functions_are_those_of_their_deployment_and_org_also_from_memory(cloud, monkeypatch):
    monkeypatch.setattr(deployed, "KEPT_MAX", 1)
    first = await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_retries=1))
    second = await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_retries=2))
    function = await cloud.services.apps.get_function(cloud.actor, "shop", "work")
    kept, places = DeployedFunctions(), [(cloud.actor.org, one.id, function.id) for one in (first, second, first)]
    found = []

    for place in places:
        async with cloud.inner.database.request_unit(cloud.actor.org) as unit:
            found.append(await kept.get(unit, *place))
        assert kept.known(*place) is found[-1]
    async with cloud.inner.database.request_unit(cloud.other_actor.org) as unit:
        strange = await kept.get(unit, cloud.other_actor.org, first.id, function.id)

    assert [one.spec.max_retries for one in found] == [1, 2, 1]
    assert kept.known(*places[1]) is None
    assert strange is None
