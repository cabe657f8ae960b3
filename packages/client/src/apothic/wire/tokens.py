"""Text form of API tokens (G17.1): `lk_` + 32 base-62 characters + 6 base-62 characters of CRC-32.

The checksum lets every program refuse a mistyped token before it looks anything up; it is no secret.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
KINDS = ("lk", "lr", "lw", "lj", "li", "ls")
"""API key, refresh token, worker token, attempt token, invite, webhook secret."""

SECRET_LENGTH = 32
CHECK_LENGTH = 6
_TOKEN = re.compile(r"(lk|lr|lw|lj|li|ls)_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


def new_token(kind: str) -> str:
    """Return a fresh token of 190 random bits; `kind` is one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"unknown token kind {kind!r}")
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    return f"{kind}_{secret}{_checksum(f'{kind}_{secret}')}"


def token_kind(text: str) -> str | None:
    """Return the kind of a well-formed token, or None when its form or checksum is wrong."""
    match = _TOKEN.fullmatch(text)
    if match is None or _checksum(text[:-CHECK_LENGTH]) != match[3]:
        return None
    return match[1]


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits: list[str] = []
    for _ in range(CHECK_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
