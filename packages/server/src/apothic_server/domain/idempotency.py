"""Idempotency keys as values: what identifies a request among its repeats, and what the store keeps of it (G6.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from apothic.wire.ids import JobId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request that carries a key.

    Attributes:
        digest: SHA-256 of method, route and key; with the org it names one row of the store.
        fingerprint: SHA-256 of what is asked for, so that a key used for something else is noticed.
        is_first: The client says that it sends this key for the first time, so that nothing need be looked up before
            the work starts; the store refuses a repeat all the same.
    """

    digest: bytes
    fingerprint: bytes
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The answer of a request that took effect, as a repeat gets it; `body` is JSON."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What the store holds of a key, written in the commit of the effect: a job's id, or the whole answer."""

    digest: bytes
    fingerprint: bytes
    job: JobId | None = None
    answer: KeptAnswer | None = None


@dataclass(frozen=True, slots=True)
class Keep(Generic[T]):
    """A request whose answer is to be kept beside its effect.

    Attributes:
        answer: Makes the answer from what the service returns; must not fail.
    """

    key: RequestKey
    answer: Callable[[T], KeptAnswer]

    def row(self, result: T) -> KeyRow:
        """Return the row that tells `result`."""
        return KeyRow(self.key.digest, self.key.fingerprint, answer=self.answer(result))
