"""Carries a link session over the ASGI WebSocket of an authenticated worker."""

from __future__ import annotations

from apothic_server.api.links.session import Session
from apothic_server.api.shared.operations import Receive, Scope, Send, Upgrade
from apothic_server.domain.access import Actor
from apothic_server.services.links import Links


def link_upgrade(links: Links) -> Upgrade:
    """Return the handler that the operation `open_link` upgrades to."""

    async def upgrade(scope: Scope, receive: Receive, send: Send, actor: Actor) -> None:
        del scope
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})
        session = Session(links, actor, lambda: _next_bytes(receive), lambda data: _send_bytes(send, data))
        code = await session.run()
        await send({"type": "websocket.close", "code": code})

    return upgrade


async def _next_bytes(receive: Receive) -> bytes | None:
    message = await receive()
    if message["type"] == "websocket.disconnect":
        return None
    data: bytes | None = message.get("bytes")
    return data if data is not None else str(message.get("text", "")).encode()


async def _send_bytes(send: Send, data: bytes) -> None:
    await send({"type": "websocket.send", "bytes": data})
