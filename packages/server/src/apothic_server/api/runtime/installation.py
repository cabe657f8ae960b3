"""Who is there: the caller, the document, and archives for workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from apothic.wire.ids import DeploymentId, is_key, record_id
from apothic.wire.version import VERSION
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import JSON_TYPE, Response, json_response, raw_response, stream_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.access import ROLE_SCOPES
from apothic_server.domain.errors import no_such

ARCHIVE_TYPE = "application/octet-stream"


class InstallationHandlers:
    """Handlers about the installation and its caller."""

    def __init__(self, services: Services, document: bytes) -> None:
        self._keys = services.keys
        self._archives = services.archives
        self._document = document

    async def get_openapi(self, request: Request) -> Response:
        """Answer the committed document."""
        return raw_response(self._document, JSON_TYPE)

    async def get_identity(self, request: Request) -> Response:
        """Answer who the caller is and what they may do."""
        actor = request.actor
        info = await self._keys.describe(actor)
        return json_response(
            {
                "org": info.org_slug,
                "key": {
                    "id": record_id("keys", info.id),
                    "name": info.name,
                    "prefix": info.prefix,
                    "last4": info.last4,
                },
                "role": actor.role.value,
                "scopes": sorted(actor.scopes & ROLE_SCOPES[actor.role]),
                "server_version": VERSION,
            }
        )

    async def get_link_archive(self, request: Request) -> Response:
        """Send a deployment's archive to a worker."""
        key = request.params["deployment_key"]
        if not is_key(key):
            raise no_such("deployment")
        pieces = await self._archives.open_for_link(request.actor, DeploymentId(key))
        first = await anext(pieces, b"")  # errors of opening become an answer while there is still one to give
        return stream_response(_from(first, pieces), ARCHIVE_TYPE)


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in rest:
        yield piece
