"""Encoded values: arguments and results as they travel. Opaque to server and worker (G19.3)."""

from __future__ import annotations

from apothic.wire.records import record

ENCODINGS = ("json", "pickle", "large")
CALL_TYPE = "application/vnd.apothic.call"
"""Content type of a call body: one frame (`apothic.wire.frames`) whose head is the `Value` without its data."""

OUTCOME_TYPE = "application/vnd.apothic.outcome"
"""Content type of a streamed answer: frames `accepted`, `alive` … `outcome`."""

OUTCOMES_TYPE = "application/vnd.apothic.outcomes"
"""Content type of the outcomes of a group: frames `outcomes`, `keep_alive` … `end`."""


@record
class Value:
    """One encoded value.

    Attributes:
        encoding: `json` (UTF-8 JSON that round-trips exactly) or `pickle` (protocol 5, made with cloudpickle);
            `large` for a reference to uploaded bytes (`apothic.wire.large`); of the arguments of a map's items `items`
            (`apothic.wire.chunks`).
        data: The bytes. For arguments they encode `[args, kwargs]`.
        python: `major.minor` of the interpreter that encoded, when the bytes hold code or classes by value and
            therefore need an equal interpreter; else None.
    """

    encoding: str
    data: bytes
    python: str | None = None


@record
class RemoteError:
    """An exception of user code, as data.

    Attributes:
        type: Qualified class name, for example `builtins.ValueError` or `shop.OutOfStock`.
        message: `str()` of the exception; at most `ERROR_MESSAGE_MAX` bytes.
        traceback: The formatted traceback of user frames; at most `ERROR_TEXT_MAX` bytes.
        code: Why the attempt failed: `exception`, `load_failed`, `result_unserializable`, `result_too_large`,
            `transfer_failed`, `python_not_available`, `image_build_failed`, `arguments_unreadable`, `python_mismatch`,
            `generator_not_supported`, `batch_result_mismatch`, `cancelled`, `killed_by_signal`,
            `exited`, `out_of_memory`, `disk_limit`, `timeout`, `startup_timeout`, `worker_lost`, `deployment_deleted`,
            `isolation_refused`.
        causes: `__cause__`/`__context__` chain, nearest first, at most `ERROR_CAUSES_MAX`; each without own causes.
    """

    type: str
    message: str
    traceback: str = ""
    code: str = "exception"
    causes: tuple[RemoteError, ...] = ()
