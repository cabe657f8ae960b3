"""Bytes of a worker's link messages to their lists; what is no such message is refused before anything looks at it."""

from __future__ import annotations

import msgspec

from apothic.wire import images, link


class BadMessageError(Exception):
    """A worker sent what is no link message; the link cannot go on."""


class WorkerMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One message of a worker: the lists of `apothic.wire.link.WorkerFrame`, and no other name."""

    hello: list[link.Hello] = []
    heartbeat: list[link.Heartbeat] = []
    draining: list[link.Draining] = []
    started: list[link.Started] = []
    logs: list[link.Logs] = []
    items: list[link.Items] = []
    finished: list[link.Finished] = []
    runner_ended: list[link.RunnerEnded] = []
    build_lines: list[images.BuildLines] = []
    prepared: list[images.Prepared] = []
    images_tidied: list[images.ImagesTidied] = []


_decode = msgspec.msgpack.Decoder(WorkerMessage).decode


def decode_worker(data: bytes) -> link.WorkerFrame:
    """Return the lists of a worker's message.

    Raises:
        BadMessageError: The bytes are no such message.
    """
    try:
        message = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessageError(str(error)) from error
    return {
        "hello": message.hello,
        "heartbeat": message.heartbeat,
        "draining": message.draining,
        "logs": message.logs,
        "items": message.items,
        "started": message.started,
        "finished": message.finished,
        "runner_ended": message.runner_ended,
        "build_lines": message.build_lines,
        "prepared": message.prepared,
        "images_tidied": message.images_tidied,
    }
