"""The event parser: any cut of the bytes gives the same events, and nothing malformed passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apothic._sse import EVENT_MAX, EventParser, MalformedEventError

STREAM = (
    b'id: 0\nevent: job.queued\ndata: {"status":"queued"}\n\n'
    b": a comment\n\n"
    b"\n\n\n"
    b'retry: 1000\nevent:job.log\nid:1\n: another\ndata:{"line":": \xc3\xa4\\n"}\n\n'
    b"id: -1\nevent: job.alive\ndata: {}\n\n"
)
EVENTS = [
    (0, "job.queued", '{"status":"queued"}'),
    (1, "job.log", '{"line":": ä\\n"}'),
    (-1, "job.alive", "{}"),
]


def test_events_cut_at_every_byte_are_the_same_events() -> None:
    for cut in range(len(STREAM) + 1):
        parser = EventParser()
        assert [*parser.feed(STREAM[:cut]), *parser.feed(STREAM[cut:])] == EVENTS
    parser = EventParser()

    assert [event for place in range(len(STREAM)) for event in parser.feed(STREAM[place : place + 1])] == EVENTS


@given(
    st.lists(st.tuples(st.integers(-1, 2**63 - 1), st.text(st.characters(exclude_characters="\r\n", codec="utf-8")))),
    st.lists(st.integers(1, 60), max_size=20),
)
def test_any_data_survives_any_cuts(events: list[tuple[int, str]], cuts: list[int]) -> None:
    stream = b"".join(f"id: {index}\nevent: x\ndata: {data}\n\n".encode() for index, data in events)
    parser, found = EventParser(), []
    for size in [*cuts, len(stream)]:
        found += parser.feed(stream[:size])
        stream = stream[size:]

    assert found == [(index, "x", data) for index, data in events]


@pytest.mark.parametrize(
    "block",
    [
        b"id: 1\nevent: x",
        b"id: 1\ndata: {}",
        b"event: x\ndata: {}",
        b"id: one\nevent: x\ndata: {}",
        b"id: 01\nevent: x\ndata: {}",
        b"id: -2\nevent: x\ndata: {}",
        b"id: 1\nevent:\ndata: {}",
        b"id: 1\nid: 2\nevent: x\ndata: {}",
        b"id: 1\nevent: x\ndata: {}\ndata: {}",
        b"id: 1\r\nevent: x\r\ndata: {}\r",
        b"id: 1\nevent: x\ndata: \xff",
        b"id: \xd9\xa1\nevent: x\ndata: {}",
        b"id: " + b"9" * 30 + b"\nevent: x\ndata: {}",
    ],
)
def test_what_is_no_event_is_refused(block: bytes) -> None:
    with pytest.raises(MalformedEventError):
        EventParser().feed(block + b"\n\n")


def test_an_event_may_be_as_large_as_the_bound_and_no_larger() -> None:
    head = b"id: 1\nevent: x\ndata: "
    whole = head + b"x" * (EVENT_MAX - len(head))

    assert len(EventParser().feed(whole + b"\n\n")) == 1
    with pytest.raises(MalformedEventError, match="larger"):
        EventParser().feed(whole + b"x\n\n")


def test_an_event_without_an_end_is_given_up_at_the_bound() -> None:
    parser = EventParser(size_max=1000)
    parser.feed(b"data: " + b"x" * 994)

    with pytest.raises(MalformedEventError, match="larger"):
        parser.feed(b"x")
