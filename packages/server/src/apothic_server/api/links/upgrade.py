"""Carries a link session over the WebSocket of an authenticated worker."""

from __future__ import annotations

from apothic_server.api.links.session import Session
from apothic_server.api.links.socket import SOCKET
from apothic_server.api.shared.operations import Receive, Scope, Send, Upgrade
from apothic_server.domain.access import Actor
from apothic_server.services.links import Links


def link_upgrade(links: Links) -> Upgrade:
    """Return the handler that the operation `open_link` upgrades to."""

    async def upgrade(scope: Scope, receive: Receive, send: Send, actor: Actor) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        socket = scope["state"][SOCKET]
        session = Session(links, actor, socket)
        socket.take_over(session.receive)
        await send({"type": "websocket.accept"})
        code = await session.run(receive())
        await send({"type": "websocket.close", "code": code})

    return upgrade
