"""Serve several calls of an `async def` function at once, each a task of one event loop on the main thread."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from apothic._runtime.channel import Channel
from apothic._runtime.chunk import Chunk, run_chunk_async
from apothic._runtime.context import CurrentCall, JobCancelled, enter_call
from apothic._runtime.errors import describe
from apothic._runtime.invoke import Call, Outcome, read_call, reply, run_call_async
from apothic._runtime.items import ItemStream
from apothic._runtime.output import CallOutput, route_output


def serve_as_tasks(channel: Channel, function: Callable[..., Any]) -> None:
    """Answer calls as they come until `stop` or the end of the connection; then finish what runs.

    The worker never has more calls open than the function allows. `cancel` cancels the call's task.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = _TaskServer(loop, channel, function)
    loop.add_reader(channel.fileno(), server.on_readable)
    while not server.is_over:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):  # raised by a task that a call started; its call sees it too
            continue
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


class _TaskServer:
    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Channel, function: Callable[..., Any]) -> None:
        self._loop = loop
        self._channel = channel
        self._function = function
        self._running: dict[str, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
        self._cancelled: set[str] = set()
        self._items: dict[str, ItemStream] = {}
        self._chunks: dict[str, Chunk] = {}
        self._is_stopping = False

    @property
    def is_over(self) -> bool:
        """No call runs and none will come."""
        return self._is_stopping and not self._running

    def on_readable(self) -> None:
        """Take the frames that have arrived."""
        frames = self._channel.receive_ready()
        if frames is None:
            self._stop()
            return
        for head, body in frames:
            if head["kind"] == "call":
                self._start(read_call(head, body))
            elif head["kind"] == "cancel":
                self._cancel(str(head["call"]))
            elif head["kind"] == "items_taken":
                self._taken(str(head["call"]), int(head["upto"]))
            elif head["kind"] == "take_back":
                if (chunk := self._chunks.get(str(head["call"]))) is not None:
                    chunk.take_back()
            elif head["kind"] == "stop":
                self._stop()

    def _start(self, call: Call) -> None:
        context = copy_context()
        if call.items is None:
            output = CallOutput(lambda stream, text: self._send_text(call, stream, text))
            run = self._run(call, output)
        else:
            chunk = self._chunks[call.id] = Chunk(self._channel, call)
            output, run = chunk.output, self._run_chunk(chunk)
        context.run(enter_call, CurrentCall(call.id, call.job, call.attempt, output))
        context.run(route_output, output)
        self._running[call.id] = context.run(self._loop.create_task, run)

    def _cancel(self, call_id: str) -> None:
        if call_id not in self._running or call_id in self._cancelled:
            return
        self._cancelled.add(call_id)
        if call_id in self._begun:  # a task cancelled before its first step would never reply
            self._running[call_id].cancel()

    def _taken(self, call_id: str, upto: int) -> None:
        if (items := self._items.get(call_id)) is not None:
            items.taken(upto)

    def _open_items(self, call_id: str) -> ItemStream:
        items = self._items[call_id] = ItemStream(self._channel, call_id)
        return items

    def _stop(self) -> None:
        self._is_stopping = True
        self._loop.remove_reader(self._channel.fileno())
        if not self._running:
            self._loop.stop()

    async def _run(self, call: Call, output: CallOutput) -> None:
        outcome = await self._outcome(call)
        output.close()
        self._forget(call)
        self._channel.send(*reply(call, outcome))
        if self.is_over:
            self._loop.stop()

    async def _run_chunk(self, chunk: Chunk) -> None:
        call = chunk.call
        if call.id not in self._cancelled:
            self._begun.add(call.id)
            await run_chunk_async(chunk, self._function, lambda: call.id in self._cancelled)
        self._forget(call)
        chunk.close()
        if self.is_over:
            self._loop.stop()

    def _forget(self, call: Call) -> None:
        del self._running[call.id]
        self._items.pop(call.id, None)
        self._chunks.pop(call.id, None)
        self._begun.discard(call.id)
        self._cancelled.discard(call.id)

    async def _outcome(self, call: Call) -> Outcome:
        if call.id in self._cancelled:
            return Outcome(error=describe(JobCancelled("the job was cancelled before it started")))
        self._begun.add(call.id)
        return self._marked(call, await run_call_async(self._function, call, self._open_items))

    def _marked(self, call: Call, outcome: Outcome) -> Outcome:
        error = outcome.error
        if error is None or call.id not in self._cancelled or not error.type.endswith(".CancelledError"):
            return outcome
        return Outcome(error=dataclasses.replace(error, code="cancelled"))

    def _send_text(self, call: Call, stream: str, text: str) -> None:
        self._channel.send({"kind": "log", "call": call.id, "stream": stream, "text": text})
