"""Entries of chunks as they travel, and the names of chunks in attempt tokens."""

import pytest

from apothic.wire.chunks import count, cut, cuts, kinds, pack, unpack
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


@pytest.mark.parametrize("parts", [[], [(0, 4)], [(0, 1), (1, 2)], [(0, 1), (3, 1)], [(1, 0), (1, 1), (2, 2)]])
def test_several_cuts_are_those_of_one_after_the_other(parts):
    data = pack(ENTRIES)

    assert cuts(data, parts) == [cut(data, *part) for part in parts]


@pytest.mark.parametrize("parts", [[(1, 1), (0, 1)], [(0, 2), (1, 1)], [(0, -1)], [(2, 3)]])
def test_cuts_that_go_back_or_too_far_are_refused(parts):
    with pytest.raises(ValueError, match=r"in their order|fewer"):
        cuts(pack(ENTRIES), parts)


def test_kinds_are_the_first_bytes():
    assert kinds(pack([b"j1", b"e{}", b"p"])) == b"jep"
    assert kinds(b"") == b""
    with pytest.raises(ValueError, match="an entry that is none"):
        kinds(pack([b"j1", b"", b"j1"]))
    with pytest.raises(ValueError, match="an entry that is none"):
        kinds(pack([b"j1", b""]))


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\2j", b"\xff\xff\xff\xffj", pack([b"j1"]) + b"\0\0\0"])
def test_malformed_data_is_refused(data):
    for read in (unpack, count, kinds, lambda data: cut(data, 0, 2)):
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
