"""The answer reader: any cut of the bytes gives the same answer, and nothing malformed passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apothic._http import AnswerReader, FileBody, MalformedAnswerError, Request, encode_head
from apothic.wire.limits import HEADER_BLOCK_MAX

FIXED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: one\r\nx-a:two\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;name=value\r\nhel\r\nA\r\nlo\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
EMPTY = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def read(data: list[bytes], method: str = "GET", body_max: int | None = 1000) -> tuple[AnswerReader, bytes]:
    reader = AnswerReader(method, body_max=body_max)
    return reader, b"".join(reader.feed(piece) for piece in data)


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (FIXED, 200, b"hello"),
        (CHUNKED, 200, b"hello\r\n world"[:3] + b"lo\r\n world"),
        (INTERIM, 204, b""),
        (EMPTY, 404, b""),
    ],
)
def test_an_answer_cut_at_every_byte_is_the_same_answer(data: bytes, status: int, body: bytes) -> None:
    for cut in range(len(data) + 1):
        reader, found = read([data[:cut], data[cut:]])
        assert (reader.status, found, reader.is_done) == (status, body, True)
    reader, found = read([data[index : index + 1] for index in range(len(data))])

    assert (reader.status, found, reader.is_done) == (status, body, True)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=12), st.lists(st.integers(1, 200), max_size=12))
def test_any_body_survives_any_chunks_and_any_cuts(body: bytes, chunks: list[int], cuts: list[int]) -> None:
    coded, rest = b"", body
    for size in [*chunks, 300]:
        if rest:
            coded += f"{len(rest[:size]):X}\r\n".encode() + rest[:size] + b"\r\n"
            rest = rest[size:]
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n" + coded + b"0\r\n\r\n"
    pieces = []
    for size in [*cuts, len(data)]:
        pieces.append(data[:size])
        data = data[size:]
    reader, found = read(pieces)

    assert found == body
    assert reader.is_done
    assert reader.can_reuse


def test_repeated_headers_are_joined_and_names_are_lower_case() -> None:
    reader, _ = read([FIXED])

    assert reader.headers == {"content-length": "5", "x-a": "one, two"}
    assert reader.can_reuse


@pytest.mark.parametrize("version", [b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", EMPTY])
def test_an_old_or_closing_server_ends_the_connection(version: bytes) -> None:
    assert not read([version])[0].can_reuse


def test_the_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    reader, _ = read([b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n"], "HEAD")

    assert reader.is_done
    assert reader.can_reuse


def test_a_body_without_length_ends_with_the_stream() -> None:
    reader, found = read([b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"])
    assert not reader.is_done
    reader.feed_end()

    assert (found, reader.is_done, reader.can_reuse) == (b"hello", True, False)


@pytest.mark.parametrize("data", [FIXED, CHUNKED, EMPTY])
def test_every_cut_off_answer_is_noticed(data: bytes) -> None:
    for size in range(len(data)):
        reader, _ = read([data[:size]])
        with pytest.raises(MalformedAnswerError):
            reader.feed_end()


HEAD = b"HTTP/1.1 200 OK\r\n"
MALFORMED = {
    "no status line": b"hello\r\n\r\n",
    "another protocol": b"HTTP/2 200 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
    "a folded header": HEAD + b"A: b\r\n c\r\n\r\n",
    "a header without colon": HEAD + b"abc\r\n\r\n",
    "a space before the colon": HEAD + b"A : b\r\n\r\n",
    "an empty header name": HEAD + b": b\r\n\r\n",
    "a NUL in a value": HEAD + b"A: b\0c\r\n\r\n",
    "a carriage return in a value": HEAD + b"A: b\rc\r\n\r\n",
    "two lengths that differ": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +1\r\n\r\n",
    "a hexadecimal length": HEAD + b"Content-Length: 0x1\r\n\r\n",
    "an empty length": HEAD + b"Content-Length: \r\n\r\n",
    "a length and a coding": HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "a length above the limit": HEAD + b"Content-Length: 1001\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\n\r\n",
    "endless interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
    "a header block above the limit": HEAD + b"A: " + b"x" * HEADER_BLOCK_MAX,
    "bytes after the answer": EMPTY + b"x",
    "a chunk size that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "an empty chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n",
    "a negative chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "a chunk above the limit": HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFF\r\n",
    "a huge chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 16 + b"\r\n",
    "an endless chunk line": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2000,
    "a chunk longer than it said": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    "a malformed trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nabc\r\n\r\n",
    "endless trailers": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 4000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_answers_are_refused_in_one_piece_and_byte_by_byte(name: str) -> None:
    data = MALFORMED[name]
    with pytest.raises(MalformedAnswerError):
        read([data])
    with pytest.raises(MalformedAnswerError):
        read([data[index : index + 1] for index in range(len(data))])


@given(st.binary(max_size=200))
def test_random_bytes_give_an_answer_or_the_one_error(data: bytes) -> None:
    reader = AnswerReader("GET", body_max=100)
    try:
        reader.feed(b"HTTP/1.1 200 OK\r\n" + data)
        reader.feed_end()
    except MalformedAnswerError:
        return
    assert reader.is_done


def test_a_request_says_its_length_only_when_it_may_have_a_body() -> None:
    assert encode_head(Request("GET", "/a"), "Host: x\r\n") == b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    assert b"Content-Length: 0\r\n" in encode_head(Request("POST", "/a"), "")
    assert b"Content-Length: 2\r\n" in encode_head(Request("PUT", "/a", body=b"ab"), "")
    assert b"Content-Length: 7\r\n" in encode_head(Request("PUT", "/a", body=FileBody(7, lambda: iter([]))), "")


@pytest.mark.parametrize(
    "request_",
    [
        Request("get", "/a"),
        Request("GET", "a"),
        Request("GET", "/a b"),
        Request("GET", "/a\r\nX: y"),
        Request("GET", "/ä"),
        Request("GET", "/a", (("X", "a\r\nY: b"),)),
        Request("GET", "/a", (("X Y", "a"),)),
    ],
)
def test_a_request_that_would_change_the_head_is_refused(request_: Request) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent|is upper-case"):
        encode_head(request_, "")
