"""Entries of chunks as they travel, and the names of chunks in attempt tokens."""

import pytest

from apothic.wire.chunks import count, cut, pack, unpack
from apothic.wire.tokens import AttemptName, parse_attempt_name

KEY = "01jc00000000000000000000aa"
ENTRIES = [b"j1", b"", b"p" + bytes(range(256)), b'e{"type":"x"}']


def test_what_was_packed_comes_back_in_order():
    data = pack(iter(ENTRIES))

    assert unpack(data) == ENTRIES
    assert count(data) == len(ENTRIES)
    assert data[:6] == b"\0\0\0\2j1"
    assert (pack([]), unpack(b""), count(b"")) == (b"", [], 0)


@pytest.mark.parametrize("begin", range(5))
@pytest.mark.parametrize("size", range(5))
def test_a_cut_is_that_part_packed(begin, size):
    data = pack(ENTRIES)
    if begin + size > len(ENTRIES):
        with pytest.raises(ValueError, match="fewer"):
            cut(data, begin, size)
    else:
        assert cut(data, begin, size) == pack(ENTRIES[begin : begin + size])


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\2j", b"\xff\xff\xff\xffj", pack([b"j1"]) + b"\0\0\0"])
def test_malformed_data_is_refused(data):
    for read in (unpack, count, lambda data: cut(data, 0, 2)):
        with pytest.raises(ValueError, match="packed data"):
            read(data)


def test_a_cut_counts_from_0():
    with pytest.raises(ValueError, match="from 0"):
        cut(pack(ENTRIES), -1, 1)


@pytest.mark.parametrize("job", [KEY, f"{KEY}.0", f"{KEY}.9999999", f"{KEY}.12-500"])
def test_attempt_names_of_items_and_chunks_come_back(job):
    name = AttemptName(KEY, job, 7)

    assert parse_attempt_name(str(name)) == name


@pytest.mark.parametrize("job", [f"{KEY}.", f"{KEY}.-5", f"{KEY}.1-", f"{KEY}.1.2", f"{KEY}.1-0", "x.1", KEY[1:]])
def test_other_names_are_none(job):
    assert parse_attempt_name(f"{KEY}.{job}.7") is None
