"""Named places at the edges of commits, where tests let this process fail. Without a setting they do nothing.

`APOTHIC_FAILPOINTS="writer.committed=kill@3;hello.before=delay:0.5"` arms two points: the third time that a flush is on
disk the process is killed, and every hello is delayed by half a second. Actions are `kill`, `raise` (the store is away)
and `delay:SECONDS`; `@N` waits for the Nth time and then acts once. A process refuses to start with failpoints unless
`APOTHIC_TEST_ONLY=1` stands beside them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

from apothic_server.domain.errors import PlatformError, Unavailable

VARIABLE, CONSENT = "APOTHIC_FAILPOINTS", "APOTHIC_TEST_ONLY"

POINTS = frozenset(
    {
        "writer.taken",
        "writer.commit",
        "writer.committed",
        "term.before",
        "term.after",
        "sweep.before",
        "sweep.after",
        "hello.before",
        "hello.after",
        "heartbeat.before",
        "heartbeat.after",
        "deploy.before",
        "deploy.after",
        "archive.before",
        "archive.after",
        "value.before",
        "value.after",
        "call.accepted",
        "cancel.committed",
        "schedule.before",
        "schedule.after",
    }
)
"""`writer.taken`: a flush is about to be sent; `writer.commit`: all its statements ran, the commit did not;
`writer.committed`: it is on disk and nobody was told. `before` and `after` stand around one transaction each."""

Handler = Callable[[str], Awaitable[None]]
_handlers: list[Handler] = []


class FailpointsRefused(PlatformError):
    """The setting is wrong, or stands where no test runs."""

    code = "failpoints_refused"


async def fp(name: str) -> None:
    """Fail here if a test asked for it.

    Raises:
        Unavailable: The action is `raise`.
    """
    for handler in _handlers:
        await handler(name)


def install(handler: Handler) -> Callable[[], None]:
    """Have `handler` awaited at every point; returns what takes it away again."""
    _handlers.append(handler)
    return lambda: _handlers.remove(handler)


def arm(environment: Mapping[str, str]) -> None:
    """Arm what the environment asks for; does nothing without the setting.

    Raises:
        FailpointsRefused: The setting is malformed, or `APOTHIC_TEST_ONLY` is not 1.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return
    if environment.get(CONSENT) != "1":
        raise FailpointsRefused(f"{VARIABLE} makes this process fail on purpose; unset it, or set {CONSENT}=1")
    for part in text.split(";"):
        install(_parse(part.strip()))


def _parse(text: str) -> Handler:
    name, equals, action = text.partition("=")
    action, _, turn = action.partition("@")
    verb, _, argument = action.partition(":")
    try:
        at, delay_s = int(turn or "0"), float(argument or "0")
    except ValueError:
        at, delay_s = -1, 0.0
    if not equals or name not in POINTS or verb not in ("kill", "raise", "delay") or at < 0 or not 0 <= delay_s <= 3600:
        raise FailpointsRefused(f"{VARIABLE} holds {text!r}; write POINT=kill, POINT=raise or POINT=delay:SECONDS")
    met = 0

    async def handler(here: str) -> None:
        nonlocal met
        if here != name:
            return
        met += 1
        if at in (0, met):
            await _act(verb, name, delay_s)

    return handler


async def _act(verb: str, name: str, delay_s: float) -> None:
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "raise":
        raise Unavailable(f"the failpoint {name} was met", retry_after_s=1)
    else:
        await asyncio.sleep(delay_s)
