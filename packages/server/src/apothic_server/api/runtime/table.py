"""The runtime face's operation table. `openapi.json` describes the same rows for readers; a test compares the two."""

from __future__ import annotations

from apothic.wire.archive_parts import PARTS_TYPE
from apothic.wire.limits import ARCHIVE_PACKED_MAX, CALL_BODY_MAX, JSON_BODY_MAX
from apothic.wire.values import CALL_TYPE, OUTCOME_TYPE
from apothic_server.api.runtime.apps import AppHandlers
from apothic_server.api.runtime.blobs import BlobHandlers, blob_operations
from apothic_server.api.runtime.calls import CallHandlers
from apothic_server.api.runtime.deployments import DeploymentHandlers
from apothic_server.api.runtime.events import SSE_TYPE, EventHandlers
from apothic_server.api.runtime.group_table import group_operations
from apothic_server.api.runtime.groups import GroupHandlers
from apothic_server.api.runtime.installation import ARCHIVE_TYPE, InstallationHandlers
from apothic_server.api.runtime.jobs import JobHandlers
from apothic_server.api.runtime.schedules import ScheduleHandlers
from apothic_server.api.runtime.stats import StatsHandlers
from apothic_server.api.runtime.waiting import FirstDone, first_done
from apothic_server.api.runtime.workers import WorkerHandlers
from apothic_server.api.shared.operations import Handler, Operation, Upgrade
from apothic_server.api.shared.response import JSON_TYPE
from apothic_server.api.shared.services import Services
from apothic_server.domain.access import Audience, Policy

_ALWAYS = frozenset({413, 422, 500, 503})
_KNOWN = _ALWAYS | {401, 403}
_READ = _KNOWN | {200}
_READ_ONE = _READ | {404}
_BODY = frozenset({408, 415})
_STOPPABLE = _READ_ONE | {409}
_CALL = _STOPPABLE | _BODY | {202, 429, 507}

_APPS_READ = Policy(Audience.KEY, "apps:read")
_APPS_WRITE = Policy(Audience.KEY, "apps:write")
_FUNCTIONS_READ = Policy(Audience.KEY, "apps:read", attempts=True)
_JOBS_READ = Policy(Audience.KEY, "jobs:read", attempts=True)
_JOBS_WRITE = Policy(Audience.KEY, "jobs:write", attempts=True)
_FENCED = frozenset({409})
"""What an operation that is open to user code answers when the calling attempt is over."""

_WAIT = frozenset({"wait_s"})


def runtime_operations(
    services: Services, link: Upgrade, document: bytes, *, wait: FirstDone = first_done
) -> list[Operation]:
    """Return the runtime face's rows.

    Args:
        link: Serves the WebSocket of an authenticated worker.
        document: What `get_openapi` answers.
        wait: Waits for futures; tests give one of their own to decide when time passes.
    """
    calls = CallHandlers(services, wait)
    return [
        *_installation(InstallationHandlers(services, document), link),
        *_workers(WorkerHandlers(services)),
        *_apps(AppHandlers(services)),
        *_deployments(DeploymentHandlers(services)),
        *_schedules(ScheduleHandlers(services)),
        *_archives(AppHandlers(services)),
        *blob_operations(BlobHandlers(services)),
        *_jobs(JobHandlers(services)),
        _get(
            "get_app_stats",
            "/v1/apps/{app}/stats",
            Policy(Audience.KEY, "jobs:read"),
            StatsHandlers(services).get_app_stats,
            "function",
            "since",
        ),
        *_events(EventHandlers(services)),
        *group_operations(GroupHandlers(services)),
        _call("call_function", "/v1/functions/{function_id}/calls", calls.call_function),
        _call("call_app_function", "/v1/apps/{app}/functions/{function}/calls", calls.call_app_function),
        Operation(
            id="retry_job",
            method="POST",
            path="/v1/jobs/{job_id}/retry",
            policy=Policy(Audience.KEY, "jobs:write"),
            statuses=_KNOWN | {202, 404, 409, 429, 507},
            handler=calls.retry_job,
        ),
        Operation(
            id="get_outcome",
            method="GET",
            path="/v1/jobs/{job_id}/outcome",
            policy=_JOBS_READ,
            statuses=_READ_ONE | {202, 409},
            handler=calls.get_outcome,
            answers=(JSON_TYPE, OUTCOME_TYPE),
            query=_WAIT,
            streams=True,
            is_frequent=True,
        ),
    ]


def _installation(handlers: InstallationHandlers, link: Upgrade) -> list[Operation]:
    return [
        Operation(
            id="get_openapi",
            method="GET",
            path="/v1/openapi.json",
            policy=Policy(Audience.PUBLIC),
            statuses=_ALWAYS | {200},
            handler=handlers.get_openapi,
        ),
        _get("get_identity", "/v1/identity", _APPS_READ, handlers.get_identity, statuses=_READ),
        Operation(
            id="open_link",
            method="GET",
            path="/v1/link",
            policy=Policy(Audience.WORKER),
            statuses=_KNOWN | {101, 426},
            upgrade=link,
            answers=(),
            streams=True,
        ),
        Operation(
            id="get_link_archive",
            method="GET",
            path="/v1/link/archives/{deployment_key}",
            policy=Policy(Audience.WORKER),
            statuses=_READ_ONE,
            handler=handlers.get_link_archive,
            answers=(ARCHIVE_TYPE,),
            streams=True,
        ),
    ]


def _workers(handlers: WorkerHandlers) -> list[Operation]:
    one, order = "/v1/workers/{worker}", Policy(Audience.OPERATOR, "org:write")
    return [
        _get(
            "list_workers",
            "/v1/workers",
            Policy(Audience.OPERATOR, "org:read"),
            handlers.list_workers,
            statuses=_READ,
        ),
        *(
            Operation(
                id=name,
                method="POST",
                path=f"{one}/{verb}",
                policy=order,
                statuses=_READ_ONE | {409},
                handler=handler,
            )
            for name, verb, handler in (
                ("drain_worker", "drain", handlers.drain_worker),
                ("resume_worker", "resume", handlers.resume_worker),
            )
        ),
        _delete("remove_worker", one, order, handlers.remove_worker, statuses=_READ_ONE),
        Operation(
            id="create_join_token",
            method="POST",
            path="/v1/join-tokens",
            policy=order,
            statuses=_KNOWN | _BODY | {201, 409, 429},
            handler=handlers.create_join_token,
            body_max=JSON_BODY_MAX,
            accepts=(JSON_TYPE,),
        ),
        _get(
            "list_join_tokens",
            "/v1/join-tokens",
            Policy(Audience.OPERATOR, "org:read"),
            handlers.list_join_tokens,
            statuses=_READ,
        ),
        _delete("revoke_join_token", "/v1/join-tokens/{join_token}", order, handlers.revoke_join_token),
        Operation(
            id="join",
            method="POST",
            path="/v1/link/join",
            policy=Policy(Audience.JOIN),
            statuses=_KNOWN | _BODY | {201, 409},
            handler=handlers.join,
            body_max=JSON_BODY_MAX,
            accepts=(JSON_TYPE,),
        ),
    ]


def _apps(handlers: AppHandlers) -> list[Operation]:
    return [
        _get("list_apps", "/v1/apps", _APPS_READ, handlers.list_apps, "cursor", "limit", statuses=_READ),
        _get("get_app", "/v1/apps/{app}", _APPS_READ, handlers.get_app),
        Operation(
            id="create_deployment",
            method="POST",
            path="/v1/apps/{app}/deployments",
            policy=_APPS_WRITE,
            statuses=_KNOWN | _BODY | {200, 201, 409, 507},
            handler=handlers.create_deployment,
            body_max=JSON_BODY_MAX,
            accepts=(JSON_TYPE,),
            query=frozenset({"if_changed"}),
        ),
        Operation(
            id="rollback_app",
            method="POST",
            path="/v1/apps/{app}/rollback",
            policy=_APPS_WRITE,
            statuses=_STOPPABLE | {201, 507},
            handler=handlers.rollback_app,
            query=frozenset({"version"}),
        ),
        _open("get_app_function", "/v1/apps/{app}/functions/{function}", _FUNCTIONS_READ, handlers.get_app_function),
        _open("get_function", "/v1/functions/{function_id}", _FUNCTIONS_READ, handlers.get_function),
    ]


def _deployments(handlers: DeploymentHandlers) -> list[Operation]:
    one = "/v1/deployments/{deployment_id}"
    return [
        _get("list_environments", "/v1/environments", _APPS_READ, handlers.list_environments, statuses=_READ),
        _delete("prune_environments", "/v1/environments", _APPS_WRITE, handlers.prune_environments, statuses=_READ),
        _get("list_deployments", "/v1/deployments", _APPS_READ, handlers.list_deployments, "app", "cursor", "limit"),
        _get("get_deployment", one, _APPS_READ, handlers.get_deployment),
        Operation(
            id="prepare_deployment",
            method="PUT",
            path=f"{one}/preparation",
            policy=_APPS_WRITE,
            statuses=_STOPPABLE,
            handler=handlers.prepare_deployment,
        ),
        Operation(
            id="stop_deployment",
            method="POST",
            path=f"{one}/stop",
            policy=_APPS_WRITE,
            statuses=_READ_ONE | {409},
            handler=handlers.stop_deployment,
            query=frozenset({"now"}),
        ),
        _delete("delete_deployment", one, _APPS_WRITE, handlers.delete_deployment, "now"),
    ]


def _schedules(handlers: ScheduleHandlers) -> list[Operation]:
    one = "/v1/schedules/{schedule_id}"
    return [
        _get("list_schedules", "/v1/schedules", _APPS_READ, handlers.list_schedules, "app", "cursor", "limit"),
        _get("get_schedule", one, _APPS_READ, handlers.get_schedule),
        *(
            Operation(
                id=f"{verb}_schedule",
                method="POST",
                path=f"{one}/{verb}",
                policy=_APPS_WRITE,
                statuses=_STOPPABLE,
                handler=handler,
            )
            for verb, handler in (("pause", handlers.pause_schedule), ("resume", handlers.resume_schedule))
        ),
        Operation(
            id="run_schedule",
            method="POST",
            path=f"{one}/run",
            policy=Policy(Audience.KEY, "jobs:write"),
            statuses=_KNOWN | {202, 404, 409, 507},
            handler=handlers.run_schedule,
        ),
    ]


def _archives(handlers: AppHandlers) -> list[Operation]:
    return [
        Operation(
            id="has_archive",
            method="HEAD",
            path="/v1/archives/{sha256}",
            policy=_APPS_WRITE,
            statuses=_READ_ONE,
            handler=handlers.has_archive,
            answers=(),
        ),
        Operation(
            id="put_archive",
            method="PUT",
            path="/v1/archives/{sha256}",
            policy=_APPS_WRITE,
            statuses=_READ | _BODY | {201, 409, 507},
            handler=handlers.put_archive,
            body_max=ARCHIVE_PACKED_MAX,
            accepts=(ARCHIVE_TYPE, PARTS_TYPE),
        ),
    ]


def _jobs(handlers: JobHandlers) -> list[Operation]:
    return [
        _get(
            "list_jobs",
            "/v1/jobs",
            Policy(Audience.KEY, "jobs:read"),
            handlers.list_jobs,
            "app",
            "cursor",
            "deployment",
            "function",
            "group",
            "limit",
            "since",
            "status",
            "unfinished",
            statuses=_READ,
        ),
        _open("get_job", "/v1/jobs/{job_id}", _JOBS_READ, handlers.get_job),
        _get(
            "get_logs",
            "/v1/jobs/{job_id}/logs",
            _JOBS_READ,
            handlers.get_logs,
            "after",
            "limit",
            statuses=_READ_ONE | _FENCED,
        ),
        Operation(
            id="cancel_job",
            method="POST",
            path="/v1/jobs/{job_id}/cancel",
            policy=_JOBS_WRITE,
            statuses=_READ_ONE | _FENCED,
            handler=handlers.cancel_job,
        ),
    ]


def _events(handlers: EventHandlers) -> list[Operation]:
    app, deployment = "/v1/apps/{app}/events", "/v1/deployments/{deployment_id}/events"
    return [
        _stream("get_events", "/v1/jobs/{job_id}/events", _JOBS_READ, handlers.get_events, "items"),
        _stream("get_group_events", "/v1/groups/{group_id}/events", _JOBS_READ, handlers.get_group_events),
        _stream("get_app_events", app, _APPS_READ, handlers.get_app_events),
        _stream("get_deployment_events", deployment, _APPS_READ, handlers.get_deployment_events),
    ]


def _stream(name: str, path: str, policy: Policy, handler: Handler, *query: str) -> Operation:
    return Operation(
        id=name,
        method="GET",
        path=path,
        policy=policy,
        statuses=_READ_ONE | ({409, 429} if policy.attempts else {429}),
        handler=handler,
        answers=(JSON_TYPE, SSE_TYPE),
        query=frozenset({"after", "limit", "snapshot", "types", "wait_s", *query}),
        streams=True,
    )


def _get(
    name: str, path: str, policy: Policy, handler: Handler, *query: str, statuses: frozenset[int] = _READ_ONE
) -> Operation:
    return Operation(
        id=name, method="GET", path=path, policy=policy, statuses=statuses, handler=handler, query=frozenset(query)
    )


def _delete(
    name: str, path: str, policy: Policy, handler: Handler, *query: str, statuses: frozenset[int] = _STOPPABLE
) -> Operation:
    return Operation(
        id=name, method="DELETE", path=path, policy=policy, statuses=statuses, handler=handler, query=frozenset(query)
    )


def _open(name: str, path: str, policy: Policy, handler: Handler) -> Operation:
    """A look-up that user code may make as well."""
    return _get(name, path, policy, handler, statuses=_READ_ONE | _FENCED)


def _call(name: str, path: str, handler: Handler) -> Operation:
    return Operation(
        id=name,
        method="POST",
        path=path,
        policy=_JOBS_WRITE,
        statuses=_CALL,
        handler=handler,
        body_max=CALL_BODY_MAX,
        accepts=(JSON_TYPE, CALL_TYPE),
        answers=(JSON_TYPE, OUTCOME_TYPE),
        query=_WAIT,
        streams=True,
        is_frequent=True,
    )
