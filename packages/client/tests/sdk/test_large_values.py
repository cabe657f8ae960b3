"""Large values between the SDK and a server: uploaded before the call, fetched after it, resumed."""

import asyncio
import hashlib
import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apothic import ControlPlaneClient, RemoteFunction, _large
from apothic._large import encode_large_result
from apothic._serialize import ValueTooLarge
from apothic.errors import ProtocolError
from apothic.wire.frames import decode_frame, encode_frame

from .conftest import Received, ScriptedServer, Wire, function_json, outcome

RESULT = encode_large_result(["y" * 2_000_000, bytearray(b"z" * 100_000)])
BYTES = b"".join(RESULT.pieces())
MIDDLE = 1_000_001

Do = Callable[[Any], Any]


@pytest.fixture(params=["blocking", "asyncio"])
def do(request: pytest.FixtureRequest) -> Do:
    """Finish what a blocking or an asyncio method returned."""

    def finish(result: Any) -> Any:
        return asyncio.run(result) if inspect.isawaitable(result) else result

    finish.is_async = request.param == "asyncio"  # type: ignore[attr-defined]
    return finish


@pytest.fixture
def greet(server: ScriptedServer, client: ControlPlaneClient, do: Any) -> Any:
    """The handle under test: `RemoteFunction` or its `.aio`."""
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)
    return function.aio if do.is_async else function


def answer_large(wire: Wire, _: Received) -> None:
    head, _ = outcome(encoding="large")
    wire.begin_stream()
    wire.frame(head, RESULT.reference.encode())
    wire.end_stream()


def send_bytes(wire: Wire, status: int, size: int, data: bytes) -> None:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    wire.send(head.encode())
    wire.send(data)


def test_both_ways_go_on_where_the_connection_broke(do: Do, greet: Any, server: ScriptedServer) -> None:
    def break_off(wire: Wire, _: Received) -> bool:
        send_bytes(wire, 200, len(BYTES), BYTES[:MIDDLE])
        return False

    server.scripts += [
        lambda wire, _: wire.answer(404),
        lambda wire, _: False,
        lambda wire, _: wire.answer(200, Upload_Offset=str(MIDDLE), Upload_Complete="?0"),
        lambda wire, _: wire.answer(201, {}),
        answer_large,
        break_off,
        lambda wire, _: send_bytes(wire, 206, len(BYTES) - MIDDLE, BYTES[MIDDLE:]),
    ]

    assert do(greet.remote(b"x" * 3_000_000)) == ["y" * 2_000_000, bytearray(b"z" * 100_000)]

    _, known, first, _, rest, call, whole, part = server.received
    name = hashlib.sha256(first.body).hexdigest()
    assert (known.method, known.path) == ("HEAD", f"/v1/blobs/{name}")
    assert rest.path.endswith(f"?offset={MIDDLE}")
    assert rest.body == first.body[MIDDLE:]
    assert decode_frame(call.body) == ({"encoding": "large", "python": None}, f"{name} {len(first.body)}".encode())
    assert "range" not in whole.headers
    assert part.headers["range"] == f"bytes={MIDDLE}-"


def test_what_the_server_has_is_not_sent_again(do: Do, greet: Any, server: ScriptedServer) -> None:
    server.scripts += [
        lambda wire, _: wire.answer(200, Upload_Offset="1", Upload_Complete="?1"),
        lambda wire, _: wire.outcome(result="done"),
    ]

    assert do(greet.remote(b"x" * 3_000_000)) == "done"
    assert [request.method for request in server.received[1:]] == ["HEAD", "POST"]


def test_other_bytes_than_were_named_are_not_read(do: Do, greet: Any, server: ScriptedServer) -> None:
    server.scripts += [answer_large, lambda wire, _: send_bytes(wire, 200, len(BYTES), b"!" + BYTES[1:])]

    with pytest.raises(ProtocolError, match="other bytes"):
        do(greet.remote())


def test_a_value_above_the_bound_is_refused_before_it_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_large, "LARGE_VALUE_MAX", 3_000_000)

    with pytest.raises(ValueTooLarge, match="the result cannot be sent"):
        encode_large_result(b"x" * 3_000_000)


class Near:
    """A server on this machine, which takes one value and gives one file."""

    def __init__(self, path: Path, given: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.taken = b""
        self._given = given
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer:
                    self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        head = decode_frame(peer.recv(4096))[0]
        self.asked.append(head)
        if head["kind"] == "open":
            with self._given.open("rb") as file:
                socket.send_fds(peer, [encode_frame({"kind": "file"})], [file.fileno()])
            return
        peer.sendall(encode_frame({"kind": "go"}))
        while len(self.taken) < head["size_bytes"]:
            self.taken += peer.recv(1_000_000)
        name = hashlib.sha256(self.taken).hexdigest()
        peer.sendall(encode_frame({"kind": "stored", "sha256": name, "size_bytes": head["size_bytes"]}))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def near(tmp_path: Path, client: ControlPlaneClient) -> Iterator[Near]:
    (tmp_path / "value").write_bytes(BYTES)
    core = client.core
    core.endpoint = replace(core.endpoint, values=str(tmp_path / "values.sock"))
    found = Near(tmp_path / "values.sock", tmp_path / "value")
    yield found
    found.close()


def test_a_server_on_this_machine_takes_and_gives_values_without_the_network(
    do: Do, greet: Any, server: ScriptedServer, near: Near
) -> None:
    server.scripts.append(answer_large)

    result = do(greet.remote(b"x" * 3_000_000))
    result[1][0] = 0
    assert result == ["y" * 2_000_000, bytearray(b"\0" + b"z" * 99_999)]

    call = server.received[-1]
    name = hashlib.sha256(near.taken).hexdigest()
    assert decode_frame(call.body)[1] == f"{name} {len(near.taken)}".encode()
    assert [request.method for request in server.received] == ["GET", "POST"]
    assert [(asked["kind"], asked["authorization"]) for asked in near.asked] == [
        ("put", "Bearer lk_test"),
        ("open", "Bearer lk_test"),
    ]
    assert near.asked[1]["sha256"] == RESULT.reference.sha256


def test_a_server_that_takes_none_on_this_machine_gets_them_over_http(
    do: Do, greet: Any, server: ScriptedServer, client: ControlPlaneClient, tmp_path: Path
) -> None:
    core = client.core
    core.endpoint = replace(core.endpoint, values=str(tmp_path / "gone" / "values.sock"))
    server.scripts += [
        lambda wire, _: wire.answer(404),
        lambda wire, _: wire.answer(201, {}),
        answer_large,
        lambda wire, _: send_bytes(wire, 200, len(BYTES), BYTES),
    ]

    assert do(greet.remote(b"x" * 3_000_000)) == ["y" * 2_000_000, bytearray(b"z" * 100_000)]
    assert [request.method for request in server.received] == ["GET", "HEAD", "PUT", "POST", "GET"]
