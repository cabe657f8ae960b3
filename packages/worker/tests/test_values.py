"""Large values between runners, their worker and a control plane that breaks off, refuses, and has no room."""

import asyncio
import contextlib
import hashlib
import http.server
import json
import os
import socket
import threading
from contextlib import asynccontextmanager

import pytest

from apothic.wire.attempts import VALUES_SOCKET
from apothic.wire.frames import decode_frame, encode_frame
from apothic.wire.ids import make_key
from apothic.wire.large import Reference
from apothic_worker.door import Door
from apothic_worker.handover import Handover
from apothic_worker.relay import ControlPlane, Relay
from apothic_worker.transfers import NO_ROOM_S, PAUSE_MAX_S, TransferRefused, Transfers
from apothic_worker.values import Values, ValuesDoor

DATA = os.urandom(3_000_000)
MIDDLE = 1_000_001
VALUE = Reference(hashlib.sha256(DATA).hexdigest(), len(DATA))
ATTEMPT = (make_key(2, 2), 3)


class Plane(http.server.BaseHTTPRequestHandler):
    """One connection to the control plane of a test, which answers as the next of its server's `answers` says."""

    protocol_version = "HTTP/1.1"

    def handle_any(self):
        asked = (self.command, self.path, self.headers.get("Range"))
        assert self.headers["X-Apothic-Attempt"]
        self.server.seen.append(asked)
        self.server.answers.pop(0)(self)

    do_GET = do_HEAD = do_PUT = handle_any  # noqa: N815

    def log_message(self, *_):
        pass

    def tell(self, status, data=b"", size=None, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(data) if size is None else size, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.close_connection = size is not None or status >= 400

    def refuse(self, status, code):
        self.tell(status, json.dumps({"detail": "so it is", "code": code}).encode())


class Patience:
    """A clock that moves when somebody waits."""

    def __init__(self):
        self.now = 0.0
        self.pauses = []
        self.ends_after = 100
        self.is_real = False

    def wait(self, stop, seconds):
        if self.is_real:
            return stop.wait(30)
        self.pauses.append(seconds)
        self.now += seconds
        return stop.is_set() or len(self.pauses) > self.ends_after


@pytest.fixture
def plane():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plane)
    server.answers, server.seen = [], []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def patience():
    return Patience()


@pytest.fixture
def transfers(plane, patience):
    relay = Relay(lambda: ControlPlane(plane.url, make_key(1, 1), "k" * 64))
    return Transfers(relay, wait=patience.wait, clock=lambda: patience.now, jitter=lambda: 1.0)


@pytest.fixture
def empty(tmp_path):
    descriptor = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def full(empty):
    assert os.write(empty, DATA) == len(DATA)
    return empty


def test_a_value_is_fetched_on_from_where_the_connection_broke(plane, transfers, patience, empty):
    plane.answers += [
        lambda plane: plane.tell(200, DATA[:MIDDLE], size=len(DATA)),
        lambda plane: plane.refuse(503, "unavailable"),
        lambda plane: plane.tell(206, DATA[MIDDLE:]),
    ]

    transfers.fetch(empty, ATTEMPT, VALUE, threading.Event())

    assert os.pread(empty, len(DATA) + 1, 0) == DATA
    assert [asked[2] for asked in plane.seen] == [None, f"bytes={MIDDLE}-", f"bytes={MIDDLE}-"]
    assert patience.pauses == [0.5, 1.0]


@pytest.mark.parametrize("status", [401, 404, 413, 422])
def test_an_answer_that_stands_ends_a_transfer_at_once(plane, transfers, patience, empty, status):
    plane.answers.append(lambda plane: plane.refuse(status, "the_code"))

    with pytest.raises(TransferRefused, match="the_code: so it is"):
        transfers.fetch(empty, ATTEMPT, VALUE, threading.Event())
    assert patience.pauses == []


def test_other_bytes_than_were_named_are_refused(plane, transfers, empty):
    plane.answers.append(lambda plane: plane.tell(200, b"!" + DATA[1:]))

    with pytest.raises(TransferRefused, match="other bytes"):
        transfers.fetch(empty, ATTEMPT, VALUE, threading.Event())


def test_an_upload_goes_on_with_the_bytes_that_are_missing(plane, transfers, full):
    got = []

    def take(plane):
        got.append(plane.rfile.read(int(plane.headers["Content-Length"])))
        plane.tell(201)

    plane.answers += [
        lambda plane: plane.tell(404),
        lambda plane: setattr(plane, "close_connection", plane.rfile.read(10) != b""),
        lambda plane: plane.tell(200, Upload_Offset=MIDDLE, Upload_Complete="?0"),
        take,
    ]

    transfers.send(full, ATTEMPT, VALUE, threading.Event())

    assert got == [DATA[MIDDLE:]]
    assert [path.partition("?")[2] for method, path, _ in plane.seen if method == "PUT"] == [
        "offset=0",
        f"offset={MIDDLE}",
    ]


def test_a_refusal_that_comes_before_the_bytes_were_read_is_heard(plane, transfers, patience, full):
    def refuse_and_read_on(plane):
        plane.refuse(413, "too_large")
        plane.wfile.flush()
        while plane.rfile.read1(100_000):
            pass

    plane.answers += [lambda plane: plane.tell(404), refuse_and_read_on]

    with pytest.raises(TransferRefused, match="too_large"):
        transfers.send(full, ATTEMPT, VALUE, threading.Event())
    assert patience.pauses == []


def test_missing_room_is_waited_for_a_minute(plane, transfers, patience, full):
    def no_room(plane):
        plane.rfile.read(int(plane.headers["Content-Length"]))
        plane.refuse(507, "large_values_full")

    plane.answers += [lambda plane: plane.tell(404), no_room] * 20

    with pytest.raises(TransferRefused, match="large_values_full"):
        transfers.send(full, ATTEMPT, VALUE, threading.Event())
    assert NO_ROOM_S <= sum(patience.pauses) < NO_ROOM_S + PAUSE_MAX_S


def test_a_control_plane_that_is_away_is_tried_ever_more_rarely_until_the_runner_is_gone(
    plane, transfers, patience, empty
):
    patience.ends_after = 12
    plane.answers += [lambda plane: plane.refuse(503, "unavailable")] * 13

    with pytest.raises(TransferRefused, match="the runner is gone"):
        transfers.fetch(empty, ATTEMPT, VALUE, threading.Event())
    assert patience.pauses[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(patience.pauses[6:]) == {PAUSE_MAX_S}


class Calls:
    """A runner with one call."""

    connections_max = 2

    def attempt_of(self, call):
        return ATTEMPT if call == "mine" else None


class Peer:
    """A runner's end of one connection for a value."""

    def __init__(self, sock):
        self.sock = sock

    async def ask(self, kind, call="mine", value=VALUE):
        """Return the answer and the descriptor that came with it."""
        head = {"kind": kind, "call": call, "sha256": value.sha256, "size_bytes": value.size_bytes}
        self.sock.send(encode_frame(head))
        data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, self.sock, 4096, 1)
        return decode_frame(data)[0] if data else None, (descriptors or [None])[0]


class Near:
    """A server on this machine: answers each connection as the next function of `answers` says."""

    def __init__(self):
        self.answers = []
        self.asked = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve)

    def begin(self, path):
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread.start()

    def _serve(self):
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer:
                self.asked.append(decode_frame(peer.recv(4096))[0])
                answer = self.answers.pop(0) if self.answers else None
                if answer is not None:
                    answer(peer)

    def end(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._thread.ident is not None:
            self._thread.join()


@pytest.fixture
def near():
    found = Near()
    yield found
    found.end()


@pytest.fixture
async def runners(tmp_path, transfers, near):
    """A function that connects as user code of one runner, with the worker's free disk at least `floor_bytes`."""
    near.begin(tmp_path / "values.sock")
    values = Values(tmp_path, transfers, Handover(tmp_path / "values.sock", transfers._relay))
    door = Door(tmp_path / "door", transfers._relay)
    values_door = ValuesDoor(door, values)
    door.admit(os.getpid(), Calls())

    @asynccontextmanager
    async def connect(floor_bytes=0):
        values._floor_bytes = floor_bytes
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(door.folder / VALUES_SOCKET))
            yield Peer(sock)

    yield connect
    values_door.close()
    door.close()


@pytest.mark.anyio
async def test_runners_of_one_zygote_get_a_value_that_was_fetched_once_and_cannot_write_to_it(plane, runners):
    plane.answers.append(lambda plane: plane.tell(200, DATA))
    async with runners() as one, runners() as other:
        answers = [await one.ask("open"), await other.ask("open")]

    assert [answer["kind"] for answer, _ in answers] == ["done", "done"]
    assert len(plane.seen) == 1
    for _, descriptor in answers:
        assert os.pread(descriptor, len(DATA) + 1, 0) == DATA
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(descriptor, b"!")
        os.close(descriptor)


@pytest.mark.anyio
async def test_what_no_call_asks_for_is_refused(plane, runners):
    async with runners() as runner:
        answer, descriptor = await runner.ask("open", call="another")

    assert (answer["kind"], descriptor, plane.seen) == ("refused", None, [])


@pytest.mark.anyio
async def test_a_value_that_the_disk_has_no_room_for_is_not_fetched(plane, runners):
    async with runners(floor_bytes=1 << 60) as runner:
        answer, _ = await runner.ask("open")

    assert (answer["kind"], plane.seen) == ("refused", [])
    assert "no room" in answer["reason"]


@pytest.mark.anyio
async def test_a_refusal_reaches_the_runner_and_the_next_try_is_a_new_one(plane, runners):
    plane.answers += [lambda plane: plane.refuse(404, "no_such_blob"), lambda plane: plane.tell(200, DATA)]
    async with runners() as one, runners() as other:
        refused, _ = await one.ask("open")
        answer, descriptor = await other.ask("open")
        os.close(descriptor)

    assert "no_such_blob" in refused["reason"]
    assert answer["kind"] == "done"


@pytest.mark.anyio
async def test_a_result_of_another_size_than_was_told_is_not_uploaded(plane, runners):
    async with runners() as runner:
        _, descriptor = await runner.ask("make")
        os.write(descriptor, b"too little")
        os.close(descriptor)
        answer, _ = await runner.ask("upload")

    assert (answer["kind"], plane.seen) == ("refused", [])
    assert "size" in answer["reason"]


@pytest.mark.anyio
async def test_a_transfer_ends_with_its_runner(plane, runners, patience):
    asked = threading.Event()

    def break_off(plane):
        asked.set()
        plane.refuse(503, "unavailable")

    patience.is_real = True
    plane.answers.append(break_off)
    async with runners() as runner:
        asking = asyncio.create_task(runner.ask("open"))
        assert await asyncio.to_thread(asked.wait, 30)
        runner.sock.shutdown(socket.SHUT_WR)
        answer, _ = await asking

    assert len(plane.seen) == 1
    assert answer is None or "gone" in answer["reason"]


@pytest.mark.anyio
async def test_a_value_of_a_server_on_this_machine_is_a_copy_that_user_code_cannot_change_it_by(
    plane, runners, near, full
):
    near.answers.append(lambda peer: socket.send_fds(peer, [encode_frame({"kind": "file"})], [full]))
    async with runners() as runner:
        answer, descriptor = await runner.ask("open")
    os.fchmod(descriptor, 0o600)  # user code owns it
    mine = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    assert os.pread(mine, len(DATA) + 1, 0) == DATA
    os.pwrite(mine, b"!" * 100, 0)
    os.close(mine)
    os.close(descriptor)

    assert answer["kind"] == "done"
    assert os.pread(full, len(DATA) + 1, 0) == DATA
    assert plane.seen == []
    (asked,) = near.asked
    assert (asked["kind"], asked["sha256"]) == ("open", VALUE.sha256)
    assert asked["authorization"].startswith("Bearer lj_")
    assert asked["attempt"]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["refused", "file", "nothing"])
async def test_a_value_that_is_not_handed_over_is_fetched(plane, runners, near, empty, kind):
    if kind != "nothing":  # `file` has no bytes in it
        near.answers.append(
            lambda peer: socket.send_fds(peer, [encode_frame({"kind": kind})], [empty] if kind == "file" else [])
        )
    plane.answers.append(lambda plane: plane.tell(200, DATA))
    async with runners() as runner:
        _, descriptor = await runner.ask("open")

    assert os.pread(descriptor, len(DATA) + 1, 0) == DATA
    os.close(descriptor)


@pytest.mark.anyio
async def test_a_runner_sends_a_result_on_a_connection_of_its_worker_and_sees_no_credential(runners, near):
    got, done = [], threading.Event()

    def take(peer):
        peer.sendall(encode_frame({"kind": "go"}))
        got.append(peer.recv(100))
        done.set()

    near.answers.append(take)
    async with runners() as runner:
        answer, descriptor = await runner.ask("send")
        with socket.socket(fileno=descriptor) as sock:
            sock.sendall(b"the bytes")
        assert await asyncio.to_thread(done.wait, 30)
        refused, nothing = await runner.ask("send")

    assert (answer, refused, nothing) == ({"kind": "done"}, {"kind": "done"}, None)
    assert got == [b"the bytes"]
    assert [(asked["kind"], asked["size_bytes"]) for asked in near.asked] == [("put", len(DATA))] * 2


@pytest.mark.anyio
async def test_a_file_that_is_read_only_for_its_owner_is_not_copied(runners, near, full):
    answer = encode_frame({"kind": "file", "is_read_only": True})
    near.answers.append(lambda peer: socket.send_fds(peer, [answer], [full]))
    async with runners(floor_bytes=1 << 60) as runner:
        _, descriptor = await runner.ask("open")

    assert os.fstat(descriptor).st_ino == os.fstat(full).st_ino
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor, b"!")
    os.close(descriptor)
