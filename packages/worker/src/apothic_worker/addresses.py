"""Where the control plane may be: configured addresses, and the servers that it told of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

SERVERS_MAX = 64
"""Told addresses that are remembered."""


def is_http(url: str) -> bool:
    """Whether an address is one of http or https."""
    return url.startswith(("http://", "https://"))


class Addresses:
    """Says which address to dial: the one that worked last, then the others in turn.

    Args:
        more: Configured addresses beside the usual one.
        follows: Says whether an address that the control plane told may be dialled.

    Attributes:
        linked: The address that welcomed last; None before the first welcome.
    """

    def __init__(self, more: Sequence[str] = (), follows: Callable[[str], bool] = is_http) -> None:
        self._follows = follows
        self._more = tuple(more)
        self._told: tuple[str, ...] = ()
        self._turn = 0
        self._moved: str | None = None
        self._dialled: str | None = None
        self.linked: str | None = None

    def dial(self, usual: str) -> str:
        """Return the address to dial now; `usual` is the configured one, which may change."""
        moved, self._moved = self._moved, None
        known = self.known(usual)
        self._dialled = moved or known[self._turn % len(known)]
        return self._dialled

    def known(self, usual: str) -> list[str]:
        """Return all addresses in the order in which they are tried, each once."""
        return list(dict.fromkeys([usual, *self._more, *self._told]))

    def failed(self) -> None:
        """The address that was dialled did not welcome: the next one is tried."""
        self._turn += 1

    def moved(self, url: str) -> bool:
        """A server named the one that dispatches: it is dialled next, unless that is no place to go."""
        if self._follows(url):
            self._moved = url
        return self._moved is not None

    def welcomed(self, usual: str) -> None:
        """The address that was dialled works; it is dialled again first when the link is lost."""
        self.linked = self._dialled
        known = self.known(usual)
        self._turn = known.index(self.linked) if self.linked in known else 0

    def told(self, servers: Sequence[str]) -> None:
        """The control plane named its live servers; an empty list says nothing."""
        if servers:
            self._told = tuple(url for url in servers[:SERVERS_MAX] if self._follows(url))
