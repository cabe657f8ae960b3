"""Where the fuzzing begins: for each target bytes that are right, and words that matter to it."""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict

from apothic.wire.archive_parts import Part, encode_parts
from apothic.wire.frames import encode_frame
from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.images import ImageSpec
from apothic.wire.link import LogLine, Logs, Started
from apothic.wire.schedules import ScheduleSpec
from apothic_worker.link_codec import encode_worker

Bytes = tuple[bytes, ...]


def _entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_MANIFEST = Manifest(
    "shop.app",
    "app",
    "3.11",
    "0.1.0",
    (
        FunctionSpec("work", image=ImageSpec("3.11", ("numpy==2.1.0",)), placement={"gpu": ["A"]}),
        FunctionSpec("tick", schedule=ScheduleSpec("30 2 * * *", "Europe/Berlin"), deadline_s=60),
    ),
    {"shop/app.py": "ab" * 32},
    (12,),
)
_SMALL = Manifest("m", "app", "3.11", "1", (FunctionSpec("f"),))
_TREE = _entry("a", kind=tarfile.DIRTYPE) + _entry("a/b.py", b"x" * 600) + _entry("run", b"y")
_PAX = _entry("@", b"12 path=a/c\n", kind=b"x") + _entry("q", b"z")

SEEDS: dict[str, Bytes] = {
    "archive": (
        b"\1" + _TREE,
        b"\1" + _PAX,
        b"\1" + _entry("@", b"long/" * 30 + b"name\0", kind=b"L") + _entry("q", b"z"),
        b"\1" + _entry("@", b"10 size=3\n", kind=b"x") + _entry("q", b"abc"),
        b"\1" + _entry("link", kind=tarfile.SYMTYPE, link="../out") + _entry("link/x", b"1"),
        b"\0" + _TREE + _PAX,
    ),
    "cron": (
        b"30 2 * * *", b"*/15 0-6,22 1,L 1-12 MON-FRI", b"0 0 LW * 5L", b"5 4 * JAN,DEC SUN#2", b"0 0 29 2 *",
        b"0 */2 1-31/3 * 0-7", b"@daily", b"59 23 31 12 7",
    ),
    "deployment": (
        _json({"manifest": asdict(_MANIFEST), "archive_sha256": "cd" * 32}),
        _json({"manifest": asdict(_SMALL), "archive_sha256": "0" * 64}),
        b"{}",
    ),
    "arguments": (
        b'j{"args": [1, "a", null, {"b": [1.5e3]}], "kwargs": {"c": true}}',
        b"j{}",
        b"c" + encode_frame({"encoding": "json", "python": None}, b"[[],{}]"),
        b"c" + encode_frame({"encoding": "pickle", "python": "3.11"}, b"\x80\x05N."),
    ),
    "archive_parts": (encode_parts("ab" * 32, [Part(None, 2), Part(0, 4), Part(9, 1), Part(None, 1)], b"abc"),),
    "query": (b"limit=5&wait_s=2.5&if_changed=true&types=job.log,job.end", b"types=app.deployed", b"limit=%31", b""),
    "events": (
        b"id: 3\nevent: job.log\ndata: {}\n\nid: 4\nevent: job.end\ndata: {\"a\": 1}\n\n",
        b": comment\n\nid: -1\nevent: job.alive\ndata: {}\n\n",
    ),
    "answers": (
        b"gHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"gHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"gHTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 No\r\nConnection: close\r\n\r\nrest",
        b"hHTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n",
    ),
    "heads": (
        b"GET /v1/jobs/jobs:x?a=b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-A: b",
        b"POST /v1/functions/f/calls HTTP/1.1\r\nContent-Length: 5\r\nAuthorization: Bearer x\r\nApothic-Call: c",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive",
    ),
    "filters": (
        _json({"gpu_ram": {"gte": 24000, "lt": 4.8e4}, "name": {"in": ["a", 1]}, "ok": {"eq": True}}),
        _json({}),
        b"null",
    ),
    "requirements": (
        b"numpy>=2 # comment\npydantic[email]~=2.7 ; python_version < '3.13'\n\n--index-url x\nnumpy \\\n  ==1.0\n",
        b"https://example.org/a.whl\n./local\n-e .\n",
    ),
    "link": (
        encode_worker([Started("0" * 26, 1), Logs("0" * 26, 1, 0, [LogLine("stdout", 0.5, "line")])]),
        encode_worker([]),
    ),
}  # fmt: skip

WORDS: dict[str, Bytes] = {
    "archive": (b"../", b"./", b"/", b"\0", b"GNU.sparse.major=1", b"path=", b"size=", b"linkpath=", b"99999999999\0"),
    "cron": (b"*", b"/", b",", b"-", b"#", b"L", b"W", b"0", b"60", b"31", b" ", b"SUN", b"\xc2\xa0", b"\xd9\xa3"),
    "deployment": (b"null", b"1e999", b"-1", b'"\\ud800"', b'"\\u0000"', b"{}", b"[]", b"true", b"9" * 30),
    "arguments": (b"null", b"1e999", b'"\\ud800"', b"[", b"{", b'"args"', b"NaN", b"\0\0\0\4"),
    "archive_parts": (b"null", b"-1", b"[", b"]", b"true", b"536870912", b"1.0", b",", b"\0\0\0\4"),
    "query": (b"&", b"=", b"%00", b"%ff", b"+", b"limit", b"types", b"wait_s", b"nan", b"1e5", b"%D9%A1"),
    "events": (b"\n", b"\n\n", b"\r", b"id:", b"event:", b"data:", b": ", b"-1", b"\xff", b"9" * 20),
    "answers": (b"\r\n", b"\r\n\r\n", b"chunked", b"Content-Length: ", b"Transfer-Encoding: ", b"0\r\n\r\n", b"ffff"),
    "heads": (b"\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked", b"%2e", b"//", b"/..", b"/v1/link", b"\xff"),
    "filters": (b"null", b"NaN", b"Infinity", b'"in"', b'"gte"', b"[]", b"{}", b"1e999", b'""', b'"\\ud800"'),
    "requirements": (b"\\\n", b"#", b" ", b";", b"@", b"[", b"]", b"==", b"\xc2\x85", b"\x0b", b"\x1c", b"-"),
    "link": (b"\xc0", b"\xdd\xff\xff\xff\xff", b"\x90", b"\x80", b"\xc1", b"\xff", b"\xdb\0\0\0\1a"),
}  # fmt: skip
