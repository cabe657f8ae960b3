"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import apothic
from apothic import ApothicError, errors

PUBLIC = [
    "ApothicError", "App", "AppNamespace", "AuthError", "BatchingSpec",
    "CapacityError", "CloudNotRunning", "ConcurrencySpec",
    "ConfigError", "ConflictError", "ConnectionLostError", "ControlPlaneClient", "Cron", "Deployment", "Function",
    "FunctionOptions", "Image", "InvalidRequestError", "Job", "JobCancelledError", "JobEndEvent", "JobErrorEvent",
    "JobGroup", "JobLogEvent", "JobResetEvent", "JobResultEvent", "JobStatusEvent", "JobStreamCheckpoint",
    "JobStreamCursor",
    "JobStreamEvent", "JobStreamItemEvent", "JobStreamResetError", "JobTimeoutError", "LocalEntrypoint",
    "NotDeployedError", "NotFoundError", "NotSupportedError", "Period", "PermissionDeniedError", "ProtocolError",
    "RemoteApp", "RemoteExecutionError", "RemoteFunction", "Retries", "SerializationError", "StreamEvent",
    "StreamResetEvent", "TooLargeError", "UnavailableError", "__version__",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert apothic.__all__ == PUBLIC
    assert dir(apothic) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(apothic, name) is not None


def test_every_error_is_public() -> None:
    found = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, ApothicError)
    }

    assert found <= set(PUBLIC)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="apothic"):
        _ = apothic.nothing  # type: ignore[attr-defined]


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path = {sys.path!r}; {code}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


HEAVY = {
    "asyncio",
    "ssl",
    "http",
    "http.client",
    "click",
    "rich",
    "cloudpickle",
    "pathspec",
    "tarfile",
    "random",
    "email",
}


def test_importing_the_package_imports_nothing_of_it() -> None:
    found = modules_after("import apothic")

    assert not found & (HEAVY | {"dataclasses", "json", "socket", "typing"})
    assert {name for name in found if name.startswith("apothic")} == {"apothic"}


def test_importing_every_public_name_imports_no_heavy_module() -> None:
    found = modules_after(f"from apothic import {', '.join(PUBLIC)}")

    assert not found & (HEAVY | {"apothic.wire.link"})


def test_errors_survive_pickling() -> None:
    import pickle

    cause = errors.RemoteExecutionError("a.B", "inner")
    made: list[Any] = [
        errors.RemoteExecutionError("builtins.ValueError", "bad", "tb", "exception", (cause,), "jobs:1"),
        errors.JobTimeoutError("late", job_id="jobs:1", is_final=True),
        errors.NotFoundError("no", request_id="r1"),
        errors.JobStreamResetError("gone", job_id="jobs:1", requested_index=3, oldest_index=7, latest_index=9),
    ]
    made[0].item = 17
    remote, late, missing, reset = pickle.loads(pickle.dumps(made))

    assert (remote.type_name, remote.job_id, str(remote)) == ("builtins.ValueError", "jobs:1", str(made[0]))
    assert (remote.__cause__.type_name, remote.item, late.item) == ("a.B", 17, None)
    assert (late.job_id, late.is_final, late.code) == ("jobs:1", True, "timeout")
    assert (str(missing), missing.request_id) == ("no", "r1")
    assert (reset.job_id, reset.requested_index, reset.oldest_index, reset.latest_index) == ("jobs:1", 3, 7, 9)
