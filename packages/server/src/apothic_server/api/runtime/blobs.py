"""Large values: handlers that translate and nothing else."""

from __future__ import annotations

import re

from apothic.wire.large import BLOB_TYPE, UPLOAD_COMPLETE, UPLOAD_OFFSET
from apothic.wire.limits import LARGE_VALUE_MAX
from apothic_server.api.runtime.manifests import is_sha256
from apothic_server.api.shared.operations import Operation
from apothic_server.api.shared.query import whole_number
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, empty_response, json_response, stream_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.access import Audience, Policy
from apothic_server.domain.errors import Invalid, problem
from apothic_server.services.values import no_such_blob

_ALWAYS = frozenset({401, 403, 413, 422, 500, 503})
_RANGE = re.compile(rb"bytes=([0-9]{1,12})-([0-9]{1,12})?")


class BlobHandlers:
    """Handlers of large values."""

    def __init__(self, services: Services) -> None:
        self._values = services.values

    async def get_upload(self, request: Request) -> Response:
        """Answer how much of a value is here."""
        found = await self._values.uploaded(request.actor, _known(request))
        if found is None:
            raise no_such_blob()
        response = empty_response()
        response.headers += _state(found.size_bytes, is_whole=found.is_whole)
        return response

    async def put_blob(self, request: Request) -> Response:
        """Store a value while it arrives."""
        digest = request.params["sha256"]
        if not is_sha256(digest):
            detail = "must be 64 lower-case hexadecimal digits"
            raise Invalid("The digest is not valid.", problems=[problem(["path", "sha256"], detail, "pattern")])
        offset = whole_number(request.query, "offset", 0, LARGE_VALUE_MAX, 0)
        announced = int(request.headers.get(b"content-length", b"0"))
        size, created = await self._values.put(
            request.actor, digest, request.chunks(), offset=offset, announced=announced
        )
        return json_response({"sha256": digest, "size_bytes": size}, status=201 if created else 200)

    async def get_blob(self, request: Request) -> Response:
        """Send a value, or the range of it that is asked for."""
        digest = _known(request)
        found = await self._values.uploaded(request.actor, digest)
        if found is None or not found.is_whole:
            raise no_such_blob()
        total = found.size_bytes
        start, size = _range(request.headers.get(b"range"), total)
        response = stream_response(await self._values.open(request.actor, digest, start=start, size=size), BLOB_TYPE)
        response.headers += [(b"content-length", b"%d" % size), (b"accept-ranges", b"bytes")]
        if b"range" in request.headers:
            response.status = 206
            response.headers.append((b"content-range", b"bytes %d-%d/%d" % (start, start + size - 1, total)))
        return response


def blob_operations(handlers: BlobHandlers) -> list[Operation]:
    """Return the rows of large values."""
    path = "/v1/blobs/{sha256}"
    reads = Policy(Audience.KEY, "jobs:read", attempts=True)
    return [
        Operation(
            id="get_upload",
            method="HEAD",
            path=path,
            policy=reads,
            statuses=_ALWAYS | {200, 404, 409},
            handler=handlers.get_upload,
            answers=(),
            is_frequent=True,
        ),
        Operation(
            id="get_blob",
            method="GET",
            path=path,
            policy=reads,
            statuses=_ALWAYS | {200, 206, 404, 409},
            handler=handlers.get_blob,
            answers=(BLOB_TYPE,),
            streams=True,
            is_frequent=True,
        ),
        Operation(
            id="put_blob",
            method="PUT",
            path=path,
            policy=Policy(Audience.KEY, "jobs:write", attempts=True),
            statuses=_ALWAYS | {200, 201, 408, 409, 415, 507},
            handler=handlers.put_blob,
            body_max=LARGE_VALUE_MAX,
            accepts=(BLOB_TYPE,),
            query=frozenset({"offset"}),
            is_frequent=True,
        ),
    ]


def _known(request: Request) -> str:
    """Return the digest of the path; text that is none names nothing."""
    digest = request.params["sha256"]
    if not is_sha256(digest):
        raise no_such_blob()
    return digest


def _state(size: int, *, is_whole: bool) -> list[tuple[bytes, bytes]]:
    return [
        (UPLOAD_OFFSET.lower().encode(), b"%d" % size),
        (UPLOAD_COMPLETE.lower().encode(), b"?1" if is_whole else b"?0"),
    ]


def _range(header: bytes | None, total: int) -> tuple[int, int]:
    """Return start and size of the range that a header asks for.

    Raises:
        Invalid: It is none of this value.
    """
    if header is None:
        return 0, total
    found = _RANGE.fullmatch(header)
    start = int(found[1]) if found else total
    end = min(int(found[2]), total - 1) if found and found[2] else total - 1
    if start > end:
        detail = f"must be bytes=FIRST-LAST or bytes=FIRST- within the {total} bytes"
        raise Invalid("The range is not valid.", problems=[problem(["header", "range"], detail, "pattern")])
    return start, end - start + 1
