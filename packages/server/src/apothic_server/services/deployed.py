"""Functions as deployments have them, kept in memory: a deployment never changes, so what was read once holds."""

from __future__ import annotations

from apothic.wire.ids import DeploymentId, FunctionId, OrgId
from apothic_server.domain.apps import Function
from apothic_server.store import recovery
from apothic_server.store.connection import Connection

KEPT_MAX = 10_000
"""Functions in memory; with more, those that were read first go."""

Place = tuple[OrgId, DeploymentId, FunctionId]


class DeployedFunctions:
    """Functions of active and earlier deployments of all orgs."""

    def __init__(self) -> None:
        self._kept: dict[Place, Function] = {}

    def known(self, org: OrgId, deployment: DeploymentId, function: FunctionId) -> Function | None:
        """Return a function that was read before; None without a look at the store."""
        return self._kept.get((org, deployment, function))

    async def get(
        self, unit: Connection, org: OrgId, deployment: DeploymentId, function: FunctionId
    ) -> Function | None:
        """Return a function as a deployment has it, None when it has no such one; `unit` may see the org."""
        place = (org, deployment, function)
        found = self._kept.get(place)
        if found is None:
            found = await recovery.deployed_function(unit, *place)
            if found is not None:
                self._kept[place] = found
                if len(self._kept) > KEPT_MAX:
                    del self._kept[next(iter(self._kept))]
        return found
