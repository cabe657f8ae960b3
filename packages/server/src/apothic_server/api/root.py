"""Puts the faces together into the one ASGI application that the server serves."""

from __future__ import annotations

from collections.abc import Callable

from apothic_server.api.ops.table import ops_operations
from apothic_server.api.runtime.calls import CallHandlers
from apothic_server.api.runtime.direct_calls import DirectCalls
from apothic_server.api.runtime.document import read_document
from apothic_server.api.runtime.table import runtime_operations
from apothic_server.api.runtime.waiting import FirstDone, first_done
from apothic_server.api.shared.asgi import Face, Log, Observe, observe_nothing
from apothic_server.api.shared.operations import Upgrade
from apothic_server.api.shared.services import Services


def build_face(
    services: Services,
    link: Upgrade,
    *,
    make_request_id: Callable[[], str],
    log: Log,
    observe: Observe = observe_nothing,
    wait: FirstDone = first_done,
) -> Face:
    """Return the application with the operations and runtime faces.

    Args:
        link: Serves the WebSocket of an authenticated worker.
        make_request_id: Gives each request its id.
        log: Gets one line per request.
        observe: Counts requests.
        wait: Waits for futures; tests decide through it when time passes.

    Raises:
        StartRefusedError: The operation table contradicts itself.
    """
    operations = ops_operations(services) + runtime_operations(services, link, read_document(), wait=wait)
    face = Face(
        operations,
        authenticate=services.authenticate,
        over=services.over,
        make_request_id=make_request_id,
        log=log,
        observe=observe,
    )
    face.direct = DirectCalls(face, services, CallHandlers(services, wait))
    return face
