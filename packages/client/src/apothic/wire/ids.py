"""Identifiers: sortable 26-character keys inside, `table:key` text on the runtime face.

A key is a ULID, 48 bits of milliseconds and 80 random bits in lower-case Crockford base 32: keys made later sort later.
Time and randomness come in as arguments; `new_key` is for the edges of a program only.
An item of a group is a job whose key is the group's, a dot and the item's number, from 0.
"""

from __future__ import annotations

import os
import re
import time
from typing import NewType

OrgId = NewType("OrgId", str)
AppId = NewType("AppId", str)
DeploymentId = NewType("DeploymentId", str)
FunctionId = NewType("FunctionId", str)
JobId = NewType("JobId", str)
RunnerId = NewType("RunnerId", str)
IncarnationId = NewType("IncarnationId", str)
KeyId = NewType("KeyId", str)
EnrolledId = NewType("EnrolledId", str)
JoinTokenId = NewType("JoinTokenId", str)
ScheduleId = NewType("ScheduleId", str)
GroupId = NewType("GroupId", str)

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
KEY_LENGTH = 26
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_KEY = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
_ITEM = re.compile(rf"({_KEY.pattern})\.(0|[1-9][0-9]{{0,6}})")


def make_key(now_ms: int, randomness: int) -> str:
    """Return the key for a time in milliseconds (48 bits) and 80 random bits."""
    pairs, time, low = _PAIRS, now_ms & ((1 << 48) - 1), randomness & ((1 << 80) - 1)
    # Written out: this runs twice for every call.
    return (
        f"{pairs[time >> 40]}{pairs[time >> 30 & 1023]}{pairs[time >> 20 & 1023]}{pairs[time >> 10 & 1023]}"
        f"{pairs[time & 1023]}{pairs[low >> 70]}{pairs[low >> 60 & 1023]}{pairs[low >> 50 & 1023]}"
        f"{pairs[low >> 40 & 1023]}{pairs[low >> 30 & 1023]}{pairs[low >> 20 & 1023]}{pairs[low >> 10 & 1023]}"
        f"{pairs[low & 1023]}"
    )


def new_key() -> str:
    """Return a fresh key from the system clock and the system's random source."""
    return make_key(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big"))


def is_key(text: str) -> bool:
    """Whether `text` has the form of a key; says nothing about existence."""
    return _KEY.fullmatch(text) is not None


def record_id(table: str, key: str) -> str:
    """Return the public text form, for example `jobs:01jc…`."""
    return f"{table}:{key}"


def parse_record_id(text: str, table: str) -> str | None:
    """Return the key inside `table:key`, or None when `text` is not of that form."""
    head, colon, key = text.partition(":")
    if not colon or head != table or not is_key(key):
        return None
    return key


def parse_job_id(text: str) -> JobId | None:
    """Return the key inside `jobs:key`, which may be that of an item, or None when `text` is not of that form."""
    head, colon, key = text.partition(":")
    if not colon or head != "jobs" or not (is_key(key) or _ITEM.fullmatch(key)):
        return None
    return JobId(key)
