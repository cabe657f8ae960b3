"""From bytes to log lines."""

from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.limits import LOG_BYTES_PER_SECOND_MAX, LOG_LINE_MAX
from apothic_worker.lines import AttemptLog, LineSplitter, pieces


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_however_the_bytes_are_cut_the_lines_are_the_same(chunks):
    whole = b"".join(chunks)
    splitter, other = LineSplitter(), LineSplitter()

    found = [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.flush()

    assert found == other.feed(whole) + other.flush()


@given(st.text(alphabet="aé€😀\0", max_size=20_000).map(lambda text: text * 3))
def test_pieces_are_bounded_and_join_to_the_line(text):
    found = pieces(text.encode())

    assert "".join(piece for piece, _ in found) == text.replace("\0", "")
    assert all(len(piece.encode()) <= LOG_LINE_MAX for piece, _ in found)
    assert [is_partial for _, is_partial in found] == [True] * (len(found) - 1) + [False]


def test_a_line_without_end_is_passed_on_when_it_is_too_long():
    splitter = LineSplitter()

    found = splitter.feed("é".encode() * LOG_LINE_MAX)

    assert [is_partial for _, is_partial in found] == [True]
    assert len(found[0][0].encode()) == LOG_LINE_MAX


def test_line_ends_of_both_kinds_are_removed():
    assert LineSplitter().feed(b"a\r\nb\nc") == [("a", False), ("b", False)]


def test_the_budget_refills_and_the_loss_is_counted():
    now = [0]
    log = AttemptLog(lambda: now[0])
    line = b"x" * 999 + b"\n"
    log.write("stdout", line * (LOG_BYTES_PER_SECOND_MAX // 1000 + 100))
    first = log.take()
    now[0] = 1000
    log.write("stdout", line)

    rest = log.close()

    assert len(first) == LOG_BYTES_PER_SECOND_MAX // 1000
    assert [(entry.stream, entry.at_ms) for entry in rest] == [("system", 1000), ("stdout", 1000)]
    assert rest[0].text.startswith("100000 bytes of output dropped")
