"""Large values of calls in a real runner, with a worker that takes its time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apothic._large import decode_large, encode_large_arguments, encode_large_result
from apothic.wire.attempts import VALUES_SOCKET
from apothic.wire.frames import decode_frame, encode_frame
from apothic.wire.large import Reference
from apothic.wire.values import Value

BODY = encode_large_arguments(["x" * 2_000_000], {})
BODY_OF_RESULT = encode_large_result("x" * 2_000_000)

APP = """
    async def echo(value):
        return value

    def echo_here(value):
        return value
"""
KINDS = [("echo", True, 2), ("echo", True, 1), ("echo_here", False, 2), ("echo_here", False, 1)]


class Place:
    """The worker's end of the socket for values."""

    def __init__(self, folder: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.settimeout(30)
        self._listener.bind(str(folder / VALUES_SOCKET))
        self._listener.listen()
        self._folder = folder

    def meet(self) -> tuple[socket.socket, dict[str, Any]]:
        """Take the next connection and what it asks for."""
        peer, _ = self._listener.accept()
        peer.settimeout(30)
        return peer, self.hear(peer)

    def hear(self, peer: socket.socket) -> dict[str, Any]:
        return decode_frame(peer.recv(4096))[0]

    def make(self, data: bytes = b"") -> int:
        descriptor = os.open(self._folder, os.O_TMPFILE | os.O_RDWR)
        assert os.write(descriptor, data) == len(data)
        return descriptor

    def answer(self, peer: socket.socket, descriptor: int | None = None, **head: Any) -> None:
        found = [] if descriptor is None else [descriptor]
        socket.send_fds(peer, [encode_frame({"kind": "done", **head})], found)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize(("function", "is_async", "tasks"), KINDS)
def test_a_large_value_comes_and_goes_as_files_of_the_worker(load, place, function, is_async, tasks) -> None:
    runner = load(APP).start(function, tasks=tasks, is_async=is_async)
    runner.submit_value("c", "large", BODY.reference.encode())
    peer, asked = place.meet()
    with peer:
        place.answer(peer, place.make(b"".join(BODY.pieces())))
    assert (asked["kind"], asked["call"], asked["sha256"]) == ("open", "c", BODY.reference.sha256)

    peer, asked = place.meet()
    result = place.make()
    with peer:
        assert (asked["kind"], asked["size_bytes"]) == ("send", BODY_OF_RESULT.size_bytes)
        place.answer(peer)
        assert place.hear(peer)["kind"] == "make"
        place.answer(peer, os.dup(result))
        told = place.hear(peer)
        place.answer(peer)
    head, data = runner.receive()
    assert (head["kind"], head["encoding"]) == ("result", "large")
    assert Reference.parse(data) == Reference(told["sha256"], told["size_bytes"])
    assert decode_large(result, Value("large", data)) == "x" * 2_000_000


@pytest.mark.parametrize(("function", "is_async", "tasks"), KINDS)
@pytest.mark.parametrize("is_stored", [True, False])
def test_a_result_is_sent_to_the_server_itself_where_there_is_one(load, place, function, is_async, tasks, is_stored):
    runner = load(APP).start(function, tasks=tasks, is_async=is_async)
    runner.submit_value("c", "large", BODY.reference.encode())
    peer, _ = place.meet()
    with peer:
        place.answer(peer, place.make(b"".join(BODY.pieces())))
    peer, _ = place.meet()
    server, theirs = socket.socketpair()
    server.settimeout(30)
    with peer, server:
        place.answer(peer, theirs.detach())
        data = b""
        while len(data) < BODY_OF_RESULT.size_bytes:
            data += server.recv(1_000_000)
        reference = BODY_OF_RESULT.reference
        if is_stored:
            told = {"kind": "stored", "sha256": reference.sha256, "size_bytes": reference.size_bytes}
            server.sendall(encode_frame(told))
        else:
            server.close()
            assert place.hear(peer)["kind"] == "make"
            place.answer(peer, place.make())
            assert place.hear(peer)["sha256"] == reference.sha256
            place.answer(peer)
    assert data == b"".join(BODY_OF_RESULT.pieces())
    head, data = runner.receive()
    assert (head["encoding"], Reference.parse(data)) == ("large", reference)


@pytest.mark.parametrize(("function", "is_async"), [("echo", True), ("echo_here", False)])
def test_calls_go_on_beside_one_that_waits_for_a_large_value(load, place, function, is_async) -> None:
    runner = load(APP).start(function, tasks=2, is_async=is_async)
    runner.submit_value("slow", "large", BODY.reference.encode())
    peer, _ = place.meet()
    with peer:
        assert runner.result("quick") == "quick"
        runner.submit_value("both", "large", BODY.reference.encode())
        other, _ = place.meet()
        with other:
            place.answer(other, kind="refused", reason="there is no room")
        head, _ = runner.receive()
        assert (head["call"], head["error"]["code"]) == ("both", "transfer_failed")
        assert "no room" in head["error"]["message"]
        if is_async:
            runner.send(kind="cancel", call="slow")
            head, _ = runner.receive()
            assert (head["call"], head["error"]["code"]) == ("slow", "cancelled")
            assert peer.recv(1) == b""
            runner.submit("slow", "again")
        else:
            place.answer(peer, kind="refused", reason="there is no room")
    assert runner.receive()[0]["call"] == "slow"
    assert runner.result("quick") == "quick"


def test_a_reference_that_is_none_is_said(load, place) -> None:
    runner = load(APP).start("echo", tasks=2, is_async=True)
    runner.submit_value("c", "large", b"no reference")

    head, _ = runner.receive()
    assert head["error"]["code"] == "arguments_unreadable"
    assert json.loads(runner.call("x")[1]) == "x"
