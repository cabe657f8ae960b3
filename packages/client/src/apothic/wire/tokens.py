"""Text form of API tokens (G17.1): `lk_` + 32 base-62 characters + 6 base-62 characters of CRC-32.

The checksum lets every program refuse a mistyped token before it looks anything up; it is no secret.

The token of an attempt is not stored and does not travel with the grant: server and worker derive it alike. The server
tells each worker once, in `Welcome`, a key of that worker's incarnation; the token is a code over job and fence under
that key. It is sent together with the name of the attempt, so that the server can derive it again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from typing import NamedTuple

from apothic.wire.ids import is_key

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
KINDS = ("lk", "lr", "lw", "lj", "li", "ls")
"""API key, refresh token, worker token, attempt token, invite (also of a worker: its join token), webhook secret."""

SECRET_LENGTH = 32
CHECK_LENGTH = 6
_ATTEMPT = re.compile(
    r"([0-9a-z]+)\.(([0-9a-z]+)(?:\.[0-9]{1,8}(?:-[1-9][0-9]{0,18})?)?)\.([1-9][0-9]{0,17})(?::(0|[1-9][0-9]{0,7}))?"
)
_TOKEN = re.compile(r"(lk|lr|lw|lj|li|ls)_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


def new_token(kind: str) -> str:
    """Return a fresh token of 190 random bits; `kind` is one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"unknown token kind {kind!r}")
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    return sealed(kind, secret)


def sealed(kind: str, secret: str) -> str:
    """Return the token of a kind with this secret: both and their checksum."""
    return f"{kind}_{secret}{_checksum(f'{kind}_{secret}')}"


def token_kind(text: str) -> str | None:
    """Return the kind of a well-formed token, or None when its form or checksum is wrong."""
    match = _TOKEN.fullmatch(text)
    if match is None or _checksum(text[:-CHECK_LENGTH]) != match[3]:
        return None
    return match[1]


class AttemptName(NamedTuple):
    """Which grant: of `job`, the one with `fence`, to the worker `incarnation`.

    Attributes:
        item: Number of the item of a map that calls, where `job` stands for several.
    """

    incarnation: str
    job: str
    fence: int
    item: int | None = None

    def __str__(self) -> str:
        name = f"{self.incarnation}.{self.job}.{self.fence}"
        return name if self.item is None else f"{name}:{self.item}"


def parse_attempt_name(text: str) -> AttemptName | None:
    """Return the name whose text this is, or None when it is none.

    The job is a key, with the number of an item behind it (`KEY.7`) or those of several items of a map (`KEY.7-500`).
    """
    match = _ATTEMPT.fullmatch(text)
    if match is None or not is_key(match[1]) or not is_key(match[3]):
        return None
    return AttemptName(match[1], match[2], int(match[4]), None if match[5] is None else int(match[5]))


def worker_attempt_key(pepper: bytes, incarnation: str) -> str:
    """Return the key under which the tokens of the attempts of one incarnation are derived, as text."""
    return hmac.new(pepper, f"attempts of {incarnation}".encode(), hashlib.sha256).hexdigest()


def attempt_token(key: str, job: str, fence: int) -> str:
    """Return the token of an attempt: `lj_`, 190 bits of a keyed digest, checksum."""
    return derived_token("lj", key.encode(), f"{job}|{fence}")


def derived_token(kind: str, key: bytes, about: str) -> str:
    """Return the token of a kind that only holders of `key` can derive for `about`."""
    digest = hmac.new(key, f"{kind}|{about}".encode(), hashlib.sha256).digest()
    number, secret = int.from_bytes(digest, "big"), ""
    for _ in range(SECRET_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        secret += ALPHABET[digit]
    return sealed(kind, secret)


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits: list[str] = []
    for _ in range(CHECK_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
