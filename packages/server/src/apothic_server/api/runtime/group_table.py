"""The operation table's rows of groups."""

from __future__ import annotations

from apothic.wire.limits import CALL_BODY_MAX, JSON_BODY_MAX
from apothic.wire.values import OUTCOMES_TYPE
from apothic_server.api.runtime.groups import GroupHandlers
from apothic_server.api.runtime.installation import ARCHIVE_TYPE
from apothic_server.api.shared.operations import Handler, Operation
from apothic_server.api.shared.response import JSON_TYPE
from apothic_server.domain.access import Audience, Policy

ONE = "/v1/groups/{group_id}"
INPUTS_TYPE = ARCHIVE_TYPE
"""Plain bytes."""

_KNOWN = frozenset({401, 403, 404, 409, 413, 422, 500, 503})
_BODY = frozenset({408, 415})
_READ = Policy(Audience.KEY, "jobs:read", attempts=True)
_WRITE = Policy(Audience.KEY, "jobs:write", attempts=True)


def group_operations(handlers: GroupHandlers) -> list[Operation]:
    """Return the rows of groups."""
    return [
        Operation(
            id="list_groups",
            method="GET",
            path="/v1/groups",
            policy=Policy(Audience.KEY, "jobs:read"),
            statuses=_KNOWN - {404, 409} | {200},
            handler=handlers.list_groups,
            query=frozenset({"app", "cursor", "function", "limit", "status"}),
        ),
        _create("create_group", "/v1/functions/{function_id}/groups", handlers.create_group),
        _create("create_app_group", "/v1/apps/{app}/functions/{function}/groups", handlers.create_app_group),
        Operation(
            id="add_inputs",
            method="POST",
            path=f"{ONE}/inputs",
            policy=_WRITE,
            statuses=_KNOWN | _BODY | {200, 429, 507},
            handler=handlers.add_inputs,
            body_max=CALL_BODY_MAX,
            accepts=(INPUTS_TYPE,),
            query=frozenset({"count", "first", "python"}),
            is_frequent=True,
        ),
        _change("close_group", f"{ONE}/close", handlers.close_group),
        _change("cancel_group", f"{ONE}/cancel", handlers.cancel_group, needs_body=False),
        Operation(
            id="get_group", method="GET", path=ONE, policy=_READ, statuses=_KNOWN | {200}, handler=handlers.get_group
        ),
        Operation(
            id="get_group_outcomes",
            method="GET",
            path=f"{ONE}/outcomes",
            policy=_READ,
            statuses=_KNOWN | {200, 429},
            handler=handlers.get_group_outcomes,
            answers=(OUTCOMES_TYPE,),
            query=frozenset({"from"}),
            streams=True,
        ),
    ]


def _create(name: str, path: str, handler: Handler) -> Operation:
    return Operation(
        id=name,
        method="POST",
        path=path,
        policy=_WRITE,
        statuses=_KNOWN | _BODY | {200, 201, 429, 507},
        handler=handler,
        body_max=JSON_BODY_MAX,
        accepts=(JSON_TYPE,),
    )


def _change(name: str, path: str, handler: Handler, *, needs_body: bool = True) -> Operation:
    return Operation(
        id=name,
        method="POST",
        path=path,
        policy=_WRITE,
        statuses=_KNOWN | _BODY | {200},
        handler=handler,
        body_max=JSON_BODY_MAX,
        accepts=(JSON_TYPE,),
        needs_body=needs_body,
    )
