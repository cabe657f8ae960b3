"""What all operations of one client share, without I/O, and the failure of a connection."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from apothic._steps import IdleLines
from apothic.config import Endpoint
from apothic.wire.version import VERSION

PAUSE_FIRST_S = 1.0
PAUSE_S_MAX = 30.0


def _random() -> float:
    from random import random

    return random()


def _new_key() -> str:
    return os.urandom(16).hex()


@dataclass
class Core:
    """What all operations of one client share.

    Attributes:
        endpoint: Where requests go.
        timeout_s: Bound of one request with its retries.
        allow_pickle: Whether results may be unpickled.
        clock: Seconds that only grow.
        random: Uniform between 0 and 1, for jitter.
        new_key: Makes idempotency keys that nobody made before.
        idle: Connections between requests.
    """

    endpoint: Endpoint
    timeout_s: float = 60.0
    allow_pickle: bool = True
    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = _random
    new_key: Callable[[], str] = _new_key
    idle: IdleLines = field(default_factory=IdleLines)
    common: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.common = f"Host: {self.endpoint.netloc}\r\nUser-Agent: apothic/{VERSION} python/{version}\r\n"
        if self.endpoint.authorization is not None:
            self.common += f"Authorization: {self.endpoint.authorization}\r\n"

    def __reduce__(self) -> NoReturn:
        raise TypeError("it holds a connection and a key; send a name or an id, and look it up there")

    def pause_s(self, tries: int, first_s: float = PAUSE_FIRST_S) -> float:
        """Return how long to wait after that many failed tries."""
        return self.random() * min(PAUSE_S_MAX, first_s * 2 ** min(tries - 1, 10))


class Lost(Exception):
    """A connection failed.

    Attributes:
        cause: What the operating system or the parser said.
        was_sent: The server may have got the whole request.
    """

    def __init__(self, cause: Exception, *, was_sent: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.was_sent = was_sent
