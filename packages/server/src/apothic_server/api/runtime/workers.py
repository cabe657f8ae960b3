"""Workers: listed, given no work, removed; join tokens, and the exchange of one for a credential."""

from __future__ import annotations

import json
from typing import Any

from apothic.wire.ids import JoinTokenId, parse_record_id, record_id
from apothic.wire.limits import JOIN_TOKEN_S_DEFAULT, JOIN_TOKEN_S_MAX, JOIN_TOKEN_S_MIN
from apothic.wire.names import WORKER_NAME_RULE, is_local_name, is_worker_name
from apothic.wire.tokens import token_kind
from apothic_server.api.runtime.records import enrolled_record, join_token_record, time_text, worker_record
from apothic_server.api.shared.bodies import as_object, invalid_body, parse_json, unknown_fields
from apothic_server.api.shared.idempotency import answer_once, replayed
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.errors import Invalid, NotFound, no_such, problem
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.domain.views import EnrolledView, Joined, JoinToken


class WorkerHandlers:
    """Handlers of workers."""

    def __init__(self, services: Services) -> None:
        self._workers = services.workers
        self._enrolment = services.enrolment

    async def list_workers(self, request: Request) -> Response:
        """Answer the machines that execute, and the workers that joined."""
        views = await self._workers.list_workers(request.actor)
        enrolled = await self._workers.list_enrolled(request.actor)
        return json_response(
            {
                "items": [worker_record(view) for view in views],
                "enrolled": [enrolled_record(view) for view in enrolled],
            }
        )

    async def drain_worker(self, request: Request) -> Response:
        """Give a worker nothing new."""
        return await self._set_draining(request, is_draining=True)

    async def resume_worker(self, request: Request) -> Response:
        """Give a worker work again."""
        return await self._set_draining(request, is_draining=False)

    async def remove_worker(self, request: Request) -> Response:
        """End a worker's credential and its link."""
        return _enrolled(await self._workers.remove(request.actor, _name(request)))

    async def create_join_token(self, request: Request) -> Response:
        """Make a token; what is kept for repeats of the request names it without its secret."""
        body = await request.body()
        life_s, key = _life_s(body), request.key(body)
        keep = None if key is None else Keep(key, _kept_token)
        found = await self._enrolment.make_token(request.actor, life_s=life_s, keep=keep)
        if isinstance(found, KeptAnswer):
            told = json.loads(found.body)
            return replayed(self._token(JoinTokenId(told["id"]), told["expires_at"]))
        return self._token(found.id, time_text(found.expires_at))

    async def list_join_tokens(self, request: Request) -> Response:
        """Answer the tokens that a worker could still join with, without their secrets."""
        found = await self._enrolment.list_tokens(request.actor)
        return json_response({"items": [join_token_record(view) for view in found]})

    async def revoke_join_token(self, request: Request) -> Response:
        """End a token that no worker has joined with."""
        key = parse_record_id(request.params["join_token"], "join_tokens")
        if key is None:
            raise no_such("join token")
        return json_response(join_token_record(await self._enrolment.revoke_token(request.actor, JoinTokenId(key))))

    async def join(self, request: Request) -> Response:
        """Enrol the worker that holds a join token."""
        body = await request.body()
        name, credential = _read_join(body)
        return await answer_once(
            request.key(body),
            lambda keep: self._enrolment.join(request.actor, name=name, credential=credential, keep=keep),
            _joined,
        )

    def _token(self, key: JoinTokenId, expires_at: str) -> Response:
        told = {"join_token_id": record_id("join_tokens", key), "token": self._enrolment.token_of(key)}
        return json_response({**told, "expires_at": expires_at}, status=201)

    async def _set_draining(self, request: Request, *, is_draining: bool) -> Response:
        name = _name(request)
        return await answer_once(
            request.key(),
            lambda keep: self._workers.set_draining(request.actor, name, is_draining=is_draining, keep=keep),
            _enrolled,
        )


def _name(request: Request) -> str:
    name = request.params["worker"]
    if is_local_name(name):
        raise NotFound(f"No worker named {name} has joined: it is beside a server, and comes and goes with it.")
    if not is_worker_name(name):
        raise no_such("worker")
    return name


def _enrolled(view: EnrolledView) -> Response:
    return json_response(enrolled_record(view))


def _joined(worker: Joined) -> Response:
    return json_response({"name": worker.name, "joined_at": time_text(worker.joined_at)}, status=201)


def _kept_token(token: JoinToken) -> KeptAnswer:
    return KeptAnswer(201, json.dumps({"id": token.id, "expires_at": time_text(token.expires_at)}).encode())


def _life_s(body: bytes) -> int:
    data = _object(body, ("life_s",))
    life_s = data.get("life_s", JOIN_TOKEN_S_DEFAULT)
    if type(life_s) is not int:
        raise _wrong("life_s", "must be a whole number", "wrong_type")
    if not JOIN_TOKEN_S_MIN <= life_s <= JOIN_TOKEN_S_MAX:
        raise _wrong("life_s", f"must be from {JOIN_TOKEN_S_MIN} to {JOIN_TOKEN_S_MAX}", "out_of_range")
    return life_s


def _read_join(body: bytes) -> tuple[str, str]:
    data = _object(body, ("name", "credential"))
    for field in ("name", "credential"):
        if field not in data:
            raise _wrong(field, "is required", "missing")
        if not isinstance(data[field], str):
            raise _wrong(field, "must be text", "wrong_type")
    name, credential = str(data["name"]), str(data["credential"])
    if not is_worker_name(name):
        raise _wrong("name", f"must be {WORKER_NAME_RULE}", "pattern")
    if token_kind(credential) != "lw":
        raise _wrong("credential", "must be a worker token: lw_… with its checksum", "pattern")
    return name, credential


def _object(body: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
    data = as_object(parse_json(body))
    if data is None:
        raise invalid_body("must be an object", "wrong_type")
    problems = unknown_fields(data, fields, ["body"])
    if problems:
        raise Invalid("The body is not valid.", problems=problems)
    return data


def _wrong(field: str, msg: str, kind: str) -> Invalid:
    return Invalid("The body is not valid.", problems=[problem(["body", field], msg, kind)])
