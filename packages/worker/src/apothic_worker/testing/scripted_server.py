"""A control plane that does what a test says: the server's side of the worker link over a real socket."""

from __future__ import annotations

import asyncio
import hashlib
import http
import io
import itertools
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from apothic.wire import images, link
from apothic.wire.chunks import pack as pack_entries
from apothic.wire.limits import LINK_FRAME_MAX
from apothic.wire.tokens import new_token
from apothic.wire.values import Value


class WorkerMessage(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a worker; see `apothic.wire.link.WorkerFrame`."""

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


_decoder = msgspec.msgpack.Decoder(WorkerMessage)
_encoder = msgspec.msgpack.Encoder()


def pack(files: dict[str, str]) -> bytes:
    """Return an archive with these text files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@dataclass
class Deployed:
    """An archive the server offers."""

    deployment: str
    digest: str


@dataclass
class ScriptedServer:
    """Start it with `async with`.

    Attributes:
        items: Everything workers sent, in acting order, all links together.
        links: Connections in the order they opened.
        settles: Whether `Finished` is answered by itself.
        answers_heartbeats: Whether heartbeats are answered.
        welcome: Makes the answer to a hello; may be replaced.
        closes_after_welcome: Whether the link is closed behind that answer, as after a refusal.
    """

    token: str = field(default_factory=lambda: new_token("lw"))
    items: list[Any] = field(default_factory=list[Any])
    links: list[ServerConnection] = field(default_factory=list[ServerConnection])
    settles: bool = True
    answers_heartbeats: bool = True
    welcome: Callable[[link.Hello], dict[str, list[Any]]] = field(
        default=lambda hello: {"welcome": [link.Welcome("w1", 10.0, 30.0, 1)]}
    )
    closes_after_welcome: bool = False
    archives: dict[str, bytes] = field(default_factory=dict[str, bytes])
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _waiters: list[tuple[Callable[[Any], bool], asyncio.Future[Any]]] = field(
        default_factory=list[tuple[Callable[[Any], bool], asyncio.Future[Any]]]
    )
    _ends: dict[str, asyncio.Future[link.Finished]] = field(default_factory=dict[str, "asyncio.Future[link.Finished]"])
    _server: Server | None = None

    async def __aenter__(self) -> Self:
        await self.listen(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shut()

    @property
    def port(self) -> int:
        """The port listened on."""
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """Address for the worker."""
        return f"http://127.0.0.1:{self.port}"

    async def listen(self, port: int) -> None:
        """Accept links."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            port,
            process_request=self._request,
            compression=None,
            max_size=LINK_FRAME_MAX,
            ping_interval=None,
        )

    async def shut(self) -> None:
        """Close every link and stop listening."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    # --- orders

    def deploy(self, files: dict[str, str]) -> Deployed:
        """Offer an archive under a new deployment."""
        name = f"d{next(self._numbers)}"
        data = pack(files)
        self.archives[name] = data
        return Deployed(name, hashlib.sha256(data).hexdigest())

    async def send(self, **frame: list[Any]) -> None:
        """Send one message on the newest link."""
        await self.links[-1].send(_encoder.encode(frame))

    def runner(self, deployed: Deployed, function: str, **changes: Any) -> link.StartRunner:
        """Return an order for a runner of `function` in the module `app`."""
        values: dict[str, Any] = {
            "runner": f"r{next(self._numbers)}",
            "org": "o1",
            "app": "demo",
            "deployment": deployed.deployment,
            "archive": deployed.digest,
            "module": "app",
            "app_variable": "app",
            "function": function,
            "qualname": function,
            "python": "3.11",
            "cpu": 1,
            "memory_mb": 256,
            "tasks": 1,
            "is_async": False,
            "startup_timeout_s": 60,
        }
        return link.StartRunner(**{**values, **changes})

    def assignment(
        self, runner: str, *args: Any, timeout_s: int = 60, deadline_left_s: float | None = None
    ) -> link.Assign:
        """Return an order for one attempt with JSON arguments."""
        value = Value("json", json.dumps([list(args), {}]).encode())
        return link.Assign(runner, f"j{next(self._numbers)}", 1, 1, timeout_s, value, deadline_left_s)

    def chunk(self, runner: str, *items: Any, first: int = 0, spread: bool = False, **limits: Any) -> link.Assign:
        """Return an order for one attempt that executes items of a map; limits as `assignment` takes them."""
        order = self.assignment(runner, **limits)
        data = pack_entries(b"j" + json.dumps(item).encode() for item in items)
        chunk = link.ChunkOrder("g1", first, len(items), spread)
        return replace(order, arguments=Value("items", data), items=chunk)

    async def call_items(self, runner: str, *items: Any, **changes: Any) -> link.Finished:
        """Assign one attempt that executes items, as `chunk` takes them, and wait for its end."""
        order = self.chunk(runner, *items, **changes)
        await self.send(assign=[order])
        return await self.finished(order)

    async def call(self, runner: str, *args: Any, **limits: Any) -> link.Finished:
        """Assign one attempt, with limits as `assignment` takes them, and wait for its end."""
        order = self.assignment(runner, *args, **limits)
        await self.send(assign=[order])
        return await self.finished(order)

    # --- what came

    async def wait_for(self, kind: type, test: Callable[[Any], bool] = lambda item: True) -> Any:
        """Return the first item of a kind that passes the test, past or to come."""

        def fits(item: Any) -> bool:
            return isinstance(item, kind) and test(item)

        for item in self.items:
            if fits(item):
                return item
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((fits, future))
        async with asyncio.timeout(60):
            return await future

    async def finished(self, order: link.Assign) -> link.Finished:
        """Return the end of an attempt."""
        if order.job not in self._ends:
            self._ends[order.job] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(60):
            return await self._ends[order.job]

    async def wait_for_hello(self, process: asyncio.subprocess.Process) -> link.Hello:
        """Return the next hello; fails at once, with what it wrote, when the worker ends instead."""
        hello = asyncio.ensure_future(self.wait_for(link.Hello))
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait([hello, ended], return_when=asyncio.FIRST_COMPLETED)
        if not hello.done():
            hello.cancel()
            written = await process.stderr.read() if process.stderr else b""
            raise AssertionError(f"the worker ended with {process.returncode}: {written.decode()}")
        ended.cancel()
        return await hello

    async def started_runner(self, deployed: Deployed, function: str, **changes: Any) -> str:
        """Order a runner and return its name."""
        order = self.runner(deployed, function, **changes)
        await self.send(start_runner=[order])
        return order.runner

    async def round_trip(self) -> None:
        """Wait until the worker has acted on everything sent so far."""
        await self.call("nobody")

    def lines(self, order: link.Assign | link.Finished, *, stream: str | None = None) -> list[str]:
        """Return the log lines of an attempt that came so far."""
        found = {
            number: line
            for item in self.items
            if isinstance(item, link.Logs) and (item.job, item.fence) == (order.job, order.fence)
            for number, line in enumerate(item.lines, item.first_number)
        }
        return [found[number].text for number in sorted(found) if stream in (None, found[number].stream)]

    # --- inside

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "who are you\n")
        prefix = "/v1/link/archives/"
        if request.path.startswith(prefix):
            data = self.archives.get(request.path.removeprefix(prefix))
            headers = Headers({"Content-Length": str(len(data or b"")), "Connection": "close"})
            return Response(200 if data is not None else 404, "OK", headers, data or b"")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        self.links.append(connection)
        try:
            async for data in connection:
                assert isinstance(data, bytes), "a worker sent a text message"
                await self._take(connection, _decoder.decode(data))
        except ConnectionClosed:
            return

    async def _take(self, connection: ServerConnection, message: WorkerMessage) -> None:
        answer: dict[str, list[Any]] = {}
        for hello in message.hello:
            answer.update(self.welcome(hello))
        for beat in message.heartbeat if self.answers_heartbeats else []:
            answer.setdefault("heartbeat_answer", []).append(link.HeartbeatAnswer(beat.sent_at_ms, []))
        for end in message.finished if self.settles else []:
            answer.setdefault("settled", []).append(link.Settled(end.job, end.fence))
        for name in WorkerMessage.__struct_fields__:
            for item in getattr(message, name):
                self._came(item)
        if answer:
            await connection.send(_encoder.encode(answer))
        if message.hello and self.closes_after_welcome:
            await connection.close(1008)

    def _came(self, item: Any) -> None:
        self.items.append(item)
        if isinstance(item, link.Finished):
            end = self._ends.setdefault(item.job, asyncio.get_running_loop().create_future())
            if not end.done():
                end.set_result(item)
        for waiter in list(self._waiters):
            fits, future = waiter
            if fits(item):
                self._waiters.remove(waiter)
                if not future.done():
                    future.set_result(item)
