"""Apothic: run Python functions on a compute cloud that anyone can run.

    from apothic import App

    app = App("hello-world")

    @app.function(cpu=1, memory_mb=512, timeout_s=60)
    def greet(name: str) -> str:
        return f"hello, {name}"

    app.deploy()
    print(greet.remote("world"))

Names are imported when they are first used, so that `import apothic` costs nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as in `typing`, whose import would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from apothic._composition import AppNamespace, LocalEntrypoint
    from apothic.app import App
    from apothic.client import ControlPlaneClient
    from apothic.errors import (
        ApothicError,
        AuthError,
        CapacityError,
        CloudNotRunning,
        ConfigError,
        ConflictError,
        ConnectionLostError,
        InvalidRequestError,
        JobCancelledError,
        JobStreamResetError,
        JobTimeoutError,
        NotDeployedError,
        NotFoundError,
        NotSupportedError,
        PermissionDeniedError,
        ProtocolError,
        RemoteExecutionError,
        SerializationError,
        TooLargeError,
        UnavailableError,
    )
    from apothic.function import Function
    from apothic.group import JobGroup
    from apothic.image import Image
    from apothic.job import Job
    from apothic.options import BatchingSpec, ConcurrencySpec, FunctionOptions, Retries
    from apothic.remote_app import Deployment, RemoteApp
    from apothic.remote_function import RemoteFunction
    from apothic.schedules import Cron, Period
    from apothic.streams import (
        JobEndEvent,
        JobErrorEvent,
        JobLogEvent,
        JobResetEvent,
        JobResultEvent,
        JobStatusEvent,
        JobStreamCheckpoint,
        JobStreamCursor,
        JobStreamEvent,
        JobStreamItemEvent,
        StreamEvent,
        StreamResetEvent,
    )

    __version__: str

__all__ = [
    "ApothicError",
    "App",
    "AppNamespace",
    "AuthError",
    "BatchingSpec",
    "CapacityError",
    "CloudNotRunning",
    "ConcurrencySpec",
    "ConfigError",
    "ConflictError",
    "ConnectionLostError",
    "ControlPlaneClient",
    "Cron",
    "Deployment",
    "Function",
    "FunctionOptions",
    "Image",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobEndEvent",
    "JobErrorEvent",
    "JobGroup",
    "JobLogEvent",
    "JobResetEvent",
    "JobResultEvent",
    "JobStatusEvent",
    "JobStreamCheckpoint",
    "JobStreamCursor",
    "JobStreamEvent",
    "JobStreamItemEvent",
    "JobStreamResetError",
    "JobTimeoutError",
    "LocalEntrypoint",
    "NotDeployedError",
    "NotFoundError",
    "NotSupportedError",
    "Period",
    "PermissionDeniedError",
    "ProtocolError",
    "RemoteApp",
    "RemoteExecutionError",
    "RemoteFunction",
    "Retries",
    "SerializationError",
    "StreamEvent",
    "StreamResetEvent",
    "TooLargeError",
    "UnavailableError",
    "__version__",
]

_HOMES = {
    "App": "apothic.app",
    "AppNamespace": "apothic._composition",
    "BatchingSpec": "apothic.options",
    "ConcurrencySpec": "apothic.options",
    "ControlPlaneClient": "apothic.client",
    "Cron": "apothic.schedules",
    "Deployment": "apothic.remote_app",
    "Function": "apothic.function",
    "FunctionOptions": "apothic.options",
    "Image": "apothic.image",
    "Job": "apothic.job",
    "JobEndEvent": "apothic.streams",
    "JobErrorEvent": "apothic.streams",
    "JobGroup": "apothic.group",
    "JobLogEvent": "apothic.streams",
    "JobResetEvent": "apothic.streams",
    "JobResultEvent": "apothic.streams",
    "JobStatusEvent": "apothic.streams",
    "JobStreamCheckpoint": "apothic.streams",
    "JobStreamCursor": "apothic.streams",
    "JobStreamEvent": "apothic.streams",
    "JobStreamItemEvent": "apothic.streams",
    "LocalEntrypoint": "apothic._composition",
    "RemoteApp": "apothic.remote_app",
    "Period": "apothic.schedules",
    "RemoteFunction": "apothic.remote_function",
    "Retries": "apothic.options",
    "StreamEvent": "apothic.streams",
    "StreamResetEvent": "apothic.streams",
}
"""Where a public name lives; all others are errors."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("apothic.wire.version").VERSION
    elif name in __all__:
        value = getattr(importlib.import_module(_HOMES.get(name, "apothic.errors")), name)
    else:
        raise AttributeError(f"module 'apothic' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
