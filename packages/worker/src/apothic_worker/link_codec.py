"""Bytes of link messages: msgpack of the lists in `apothic.wire.link`.

The structures below have the fields of `ServerFrame` and `WorkerFrame` in acting order and refuse unknown names,
which a `TypedDict` cannot do; a test compares them.
"""

from __future__ import annotations

import msgspec

from apothic.wire import images, link


class LinkBroken(Exception):
    """The other side sent what is no link message; the link cannot go on."""


class ServerMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One message of the server; see `apothic.wire.link.ServerFrame`."""

    refused: list[link.Refused] = []
    welcome: list[link.Welcome] = []
    heartbeat_answer: list[link.HeartbeatAnswer] = []
    settled: list[link.Settled] = []
    logs_taken: list[link.LogsTaken] = []
    items_taken: list[link.ItemsTaken] = []
    cancel: list[link.Cancel] = []
    take_back: list[link.TakeBack] = []
    lent: list[link.Lent] = []
    stop_runner: list[link.StopRunner] = []
    prepare_image: list[images.PrepareImage] = []
    tidy_images: list[images.TidyImages] = []
    start_runner: list[link.StartRunner] = []
    assign: list[link.Assign] = []
    ping: list[link.Ping] = []


ServerItem = (
    link.Refused
    | link.Welcome
    | link.HeartbeatAnswer
    | link.Settled
    | link.LogsTaken
    | link.ItemsTaken
    | link.Cancel
    | link.TakeBack
    | link.Lent
    | link.StopRunner
    | images.PrepareImage
    | images.TidyImages
    | link.StartRunner
    | link.Assign
    | link.Ping
)
WorkerItem = (
    link.Hello
    | link.Heartbeat
    | link.Draining
    | link.Logs
    | link.Items
    | link.Started
    | link.Finished
    | link.RunnerEnded
    | images.BuildLines
    | images.Prepared
    | images.ImagesTidied
)

NAMES: dict[type, str] = {
    link.Hello: "hello",
    link.Heartbeat: "heartbeat",
    link.Draining: "draining",
    link.Started: "started",
    link.Logs: "logs",
    link.Items: "items",
    link.Finished: "finished",
    link.RunnerEnded: "runner_ended",
    images.BuildLines: "build_lines",
    images.Prepared: "prepared",
    images.ImagesTidied: "images_tidied",
}
"""Message name of each item of a worker."""

_decoder = msgspec.msgpack.Decoder(ServerMessage)
_encoder = msgspec.msgpack.Encoder()


def decode_server(data: bytes) -> list[ServerItem]:
    """Return the items of a server's message in acting order.

    Raises:
        LinkBroken: The bytes are no such message.
    """
    try:
        message = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LinkBroken(f"the server sent a message that is none: {error}") from error
    return [item for items in msgspec.structs.astuple(message) if items for item in items]


def encode_worker(items: list[WorkerItem]) -> bytes:
    """Return one message with these items, grouped by name, the order of each kind kept."""
    frame: dict[str, list[WorkerItem]] = {}
    for item in items:
        frame.setdefault(NAMES[type(item)], []).append(item)
    return _encoder.encode(frame)
