"""The targets: each takes bytes and fails when what reads them does anything but answer or refuse."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apothic._http import AnswerReader, MalformedAnswerError
from apothic._requirements import _lines, checked
from apothic._sse import EventParser, MalformedEventError
from apothic.errors import InvalidRequestError
from apothic.placement import Placement
from apothic.schedules import Cron
from apothic.wire.archive_parts import decode_parts, encode_parts
from apothic.wire.frames import FrameError
from apothic.wire.schedules import ScheduleSpec
from apothic.wire.values import CALL_TYPE
from apothic_server.api.links.codec import BadMessageError, decode_worker
from apothic_server.api.runtime.arguments import read_arguments
from apothic_server.api.runtime.event_kinds import APP, DEPLOYMENT, JOB
from apothic_server.api.runtime.manifests import read_deployment
from apothic_server.api.shared.query import parse_query, seconds, truth, whole_number
from apothic_server.domain.errors import Invalid, TooLarge
from apothic_server.domain.schedule_rules import fault_of, in_words
from apothic_server.domain.timing import next_due
from apothic_worker.archive import ArchiveRefused, UnpackLimits, unpack
from apothic_worker.heads import Refused, parse_answer, parse_request, write_request

LIMITS = UnpackLimits(bytes_max=50_000, entries_max=20)
DAY = datetime(2026, 3, 28, tzinfo=UTC)
ZONE = "Europe/Berlin"
MEMORY = next((folder for folder in ("/dev/shm",) if os.access(folder, os.W_OK)), None)
"""Where files cost no disk; None for the usual folder."""

QUERY = frozenset({"limit", "wait_s", "if_changed", "types"})


@dataclass(frozen=True)
class Target:
    """Something to feed.

    Attributes:
        run: Raises when the bytes show a fault.
        share: Executions of each 1,000 that it gets.
    """

    run: Callable[[bytes], None]
    share: int

    @property
    def name(self) -> str:
        return self.run.__name__


def archive(data: bytes) -> None:
    """The first byte says whether headers get right checksums, and whether the rest is compressed already."""
    how, plain = data[:1] or b"\0", data[1:]
    if how[0] & 1:
        plain = b"".join(_checked(plain[start : start + 512]) for start in range(0, len(plain), 512))
    packed = plain if how[0] & 2 else gzip.compress(plain + bytes(1024), 0, mtime=0)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=MEMORY))
    try:
        (folder / "target").mkdir()
        with contextlib.suppress(ArchiveRefused):
            unpack(io.BytesIO(packed), folder / "target", LIMITS)
        assert [path.name for path in folder.iterdir()] == ["target"]
        found = list((folder / "target").rglob("*"))
        assert len(found) <= LIMITS.entries_max
        assert all(path.is_file() or path.is_dir() for path in found)
        assert not any(path.is_symlink() for path in found)
        assert sum(path.stat().st_size for path in found if path.is_file()) <= LIMITS.bytes_max
    finally:
        shutil.rmtree(folder)


def _checked(block: bytes) -> bytes:
    if len(block) < 512 or not any(block):
        return block
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def cron(data: bytes) -> None:
    """What the SDK lets pass, the server takes, unless there is no such day; it comes due and can be said in words."""
    line = data.decode("utf-8", "replace")
    spec = ScheduleSpec(line, ZONE)
    try:
        spec = Cron(line, timezone=ZONE).spec()
    except InvalidRequestError:
        assert fault_of(spec) is not None
        return
    fault = fault_of(spec)
    if fault is not None:
        assert "never comes due" in fault.text
        return
    first = next_due(spec, DAY, DAY)
    assert first is not None
    assert first > DAY
    assert in_words(spec)


def deployment(data: bytes) -> None:
    """A body that is taken is taken again in the form it is stored in."""
    try:
        manifest, digest = read_deployment(data)
    except (Invalid, TooLarge):
        return
    again = json.dumps({"manifest": asdict(manifest), "archive_sha256": digest}).encode()
    assert read_deployment(again) == (manifest, digest)


def arguments(data: bytes) -> None:
    """The first byte chooses the form."""
    media_type = CALL_TYPE if data[:1] == b"c" else "application/json"
    try:
        value = read_arguments(data[1:], media_type)
    except (Invalid, TooLarge):
        return
    if media_type != CALL_TYPE:
        args, kwargs = json.loads(value.data)
        assert isinstance(args, list)
        assert isinstance(kwargs, dict)


def archive_parts(data: bytes) -> None:
    try:
        found = decode_parts(data)
    except FrameError:
        return
    assert decode_parts(encode_parts(*found)) == found


def query(data: bytes) -> None:
    for read in (
        lambda found: whole_number(found, "limit", 1, 1000, 50),
        lambda found: seconds(found, "wait_s", 30, 0),
        lambda found: truth(found, "if_changed"),
        lambda found: [words.chosen(found.get("types")) for words in (JOB, APP, DEPLOYMENT)],
    ):
        try:
            read(parse_query(data, QUERY))
        except Invalid:
            continue


def events(data: bytes) -> None:
    """However the bytes are cut, the same events come of them."""
    assert _events(data) == _events(data[: len(data) // 2], data[len(data) // 2 :])


def _events(*pieces: bytes) -> Any:
    parser = EventParser(size_max=500)
    found: list[Any] = []
    try:
        for piece in pieces:
            found += parser.feed(piece)
    except MalformedEventError:
        return None
    return found


def answers(data: bytes) -> None:
    """However the bytes are cut, the same answer comes of them."""
    method = "HEAD" if data[:1] == b"h" else "GET"
    data = data[1:]
    whole, cut = (_answer(method, pieces) for pieces in ([data], [data[i : i + 7] for i in range(0, len(data), 7)]))
    assert whole == cut


def _answer(method: str, pieces: list[bytes]) -> Any:
    reader = AnswerReader(method, body_max=1_000)
    body = b""
    try:
        for piece in pieces:
            body += reader.feed(piece)
        reader.feed_end()
    except MalformedAnswerError:
        return None
    return reader.status, reader.headers, reader.can_reuse, body


def heads(data: bytes) -> None:
    """A request that goes on is read again as the same one."""
    block = data + b"\r\n\r\n"
    with contextlib.suppress(ValueError):
        parse_answer(block, b"GET")
    try:
        head = parse_request(block)
    except Refused:
        return
    written = write_request(head, b"", b"cloud.test", [(b"authorization", b"Bearer x")])
    assert written.count(b"\r\n\r\n") == 1
    again = parse_request(written)
    assert (again.method, again.target, again.length) == (head.method, head.target, head.length)
    assert again.headers == head.headers


def filters(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        given = Placement(offer_filters=value).as_dict()
    except InvalidRequestError:
        return
    assert given == ({} if value is None else {"offer_filters": value})


def requirements(data: bytes) -> None:
    for _, line in _lines(data.decode("utf-8", "replace")):
        try:
            found = checked(line)
        except InvalidRequestError:
            continue
        assert checked(found) == found
        assert "\n" not in found
        assert not found.startswith("-")


def link(data: bytes) -> None:
    try:
        decode_worker(data)
    except BadMessageError:
        return


TARGETS = {
    target.name: target
    for target in (
        Target(archive, 100),
        Target(cron, 60),
        Target(deployment, 80),
        Target(arguments, 100),
        Target(archive_parts, 100),
        Target(query, 100),
        Target(events, 100),
        Target(answers, 80),
        Target(heads, 100),
        Target(filters, 80),
        Target(requirements, 40),
        Target(link, 60),
    )
}
