"""Apps, deployments, functions and archives: handlers that translate and nothing else."""

from __future__ import annotations

from apothic.wire.archive_parts import PARTS_TYPE, Part, decode_parts
from apothic.wire.frames import HEAD_MAX, PREFIX, FrameError
from apothic.wire.limits import ARCHIVE_PARTS_NEW_MAX, LIST_PAGE_DEFAULT, LIST_PAGE_MAX
from apothic.wire.names import APP_NAME_RULE, is_app_name, is_function_name
from apothic_server.api.runtime import records
from apothic_server.api.runtime.manifests import is_sha256, read_deployment
from apothic_server.api.shared.idempotency import answer_once
from apothic_server.api.shared.query import refusal, truth, whole_number
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, empty_response, json_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.apps import Switch
from apothic_server.domain.errors import Invalid, TooLarge, no_such, problem

VERSION_MAX = 2**31 - 1
PARTS_BODY_MAX = PREFIX + HEAD_MAX + ARCHIVE_PARTS_NEW_MAX


class AppHandlers:
    """Handlers of everything that is deployed."""

    def __init__(self, services: Services) -> None:
        self._apps = services.apps
        self._archives = services.archives

    async def list_apps(self, request: Request) -> Response:
        """Answer one page; asks for one item more to know whether another page follows."""
        limit = whole_number(request.query, "limit", 1, LIST_PAGE_MAX, LIST_PAGE_DEFAULT)
        after = None
        if "cursor" in request.query:
            after = records.app_cursor(request.query["cursor"])
            if after is None:
                raise refusal("cursor", "is no cursor that a list answered", "cursor_invalid")
        views = await self._apps.list_apps(request.actor, after=after, limit=limit + 1)
        items = [records.app_record(view) for view in views[:limit]]
        return json_response({"items": items, "next_cursor": items[-1]["app_id"] if len(views) > limit else None})

    async def get_app(self, request: Request) -> Response:
        """Answer one app by name."""
        return json_response(records.app_record(await self._apps.get_app(request.actor, app_name(request))))

    async def create_deployment(self, request: Request) -> Response:
        """Make a new live version of an app, unless it shall be and is the same as the live one."""
        name = request.params["app"]
        if not is_app_name(name):
            raise Invalid("The app's name is not valid.", problems=[problem(["path", "app"], APP_NAME_RULE, "pattern")])
        body = await request.body()
        manifest, digest = read_deployment(body)
        if_changed = truth(request.query, "if_changed")
        return await answer_once(
            request.key(body),
            lambda keep: self._apps.deploy(request.actor, name, manifest, digest, keep, if_changed=if_changed),
            _switched,
        )

    async def rollback_app(self, request: Request) -> Response:
        """Make the content of an earlier version live again."""
        name = app_name(request)
        version = whole_number(request.query, "version", 1, VERSION_MAX, 0) or None
        return await answer_once(
            request.key(),
            lambda keep: self._apps.rollback(request.actor, name, version=version, keep=keep),
            _switched,
        )

    async def get_app_function(self, request: Request) -> Response:
        """Answer one function by app and name."""
        app, name = app_and_function(request)
        return json_response(records.function_record(await self._apps.get_function(request.actor, app, name)))

    async def get_function(self, request: Request) -> Response:
        """Answer one function by id."""
        key = records.function_key(request.params["function_id"])
        return json_response(records.function_record(await self._apps.function_by_id(request.actor, key)))

    async def has_archive(self, request: Request) -> Response:
        """Answer whether the org stores an archive; text that is no digest is not stored."""
        digest = request.params["sha256"]
        if not is_sha256(digest) or not await self._archives.has(request.actor, digest):
            raise no_such("archive")
        return empty_response()

    async def put_archive(self, request: Request) -> Response:
        """Store an archive while it arrives, or made of parts of another one."""
        digest = request.params["sha256"]
        if not is_sha256(digest):
            detail = "must be 64 lower-case hexadecimal digits"
            raise Invalid("The digest is not valid.", problems=[problem(["path", "sha256"], detail, "pattern")])
        if request.media_type == PARTS_TYPE:
            base, parts, new = _read_parts(await _whole(request))
            size, created = await self._archives.put_parts(request.actor, digest, base, parts, new)
        else:
            size, created = await self._archives.put(request.actor, digest, request.chunks())
        return json_response({"sha256": digest, "size_bytes": size}, status=201 if created else 200)


async def _whole(request: Request) -> bytes:
    """Return a body of parts; that of a whole archive may be larger and is never held in memory."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.chunks():
        pieces.append(piece)
        size += len(piece)
        if size > PARTS_BODY_MAX:
            raise TooLarge(f"parts of an archive may have {PARTS_BODY_MAX} bytes; send it whole")
    return b"".join(pieces)


def _read_parts(body: bytes) -> tuple[str, list[Part], bytes]:
    """Return base, parts and new bytes of an archive that is sent as parts.

    Raises:
        Invalid: The body is none.
    """
    try:
        base, parts, new = decode_parts(body)
        if not is_sha256(base):
            raise FrameError("the base must be 64 lower-case hexadecimal digits")
    except FrameError as error:
        raise Invalid("The parts are not valid.", problems=[problem(["body"], str(error), "frame_invalid")]) from None
    return base, parts, new


def _switched(switch: Switch) -> Response:
    return json_response(records.deployment_record(switch.deployment), status=201 if switch.is_new else 200)


def app_name(request: Request) -> str:
    """Return the path's app name; a name no app can have is not found."""
    name = request.params["app"]
    if not is_app_name(name):
        raise no_such("app")
    return name


def app_and_function(request: Request) -> tuple[str, str]:
    """Return the path's app and function names; names nothing can have are not found."""
    name = request.params["function"]
    if not is_function_name(name):
        raise no_such("function")
    return app_name(request), name
