"""When a function whose runners crash gets its next one."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.values import RemoteError
from apothic_server.domain.decide.crash_loop import (
    CRASHES_MAX,
    PAUSE_S,
    PAUSE_S_MAX,
    REASON_MAX,
    after_crash,
    after_pause,
    crash_reason,
    holds_back,
)

ERROR = RemoteError("builtins.ImportError", "no module", code="load_failed")
SERVED, UNPROVEN = SimpleNamespace(has_served=True), SimpleNamespace(has_served=False)


def streak_of(crashes, *, between_s=1.0):
    """Return the streak after so many crashes, each after the pause before it."""
    streak, now = None, 0.0
    for _ in range(crashes):
        streak = after_crash(streak, ERROR, now)
        now = max(now + between_s, streak.next_at)
        streak = streak if _ == crashes - 1 else after_pause(streak, now)
    return streak


def test_pauses_begin_after_five_crashes_and_double_up_to_a_bound():
    pauses = [streak_of(crashes).pause_s for crashes in range(1, 13)]

    assert pauses == [0, 0, 0, 0, 10, 20, 40, 80, 160, 300, 300, 300]


@given(st.lists(st.floats(0, 1000), max_size=30))
def test_a_pause_never_ends_early_and_never_grows_while_it_lasts(gaps):
    streak, now = None, 0.0
    for gap in gaps:
        now += gap
        before = None if streak is None else after_pause(streak, now)
        streak = after_crash(before, ERROR, now)
        assert streak.crashes == (before.crashes if before else 0) + 1
        if before is not None and before.is_paused:
            assert (streak.next_at, streak.pause_s) == (before.next_at, before.pause_s)
        elif streak.crashes >= CRASHES_MAX:
            assert streak.is_paused
            assert PAUSE_S <= streak.pause_s <= PAUSE_S_MAX
            assert streak.next_at == now + streak.pause_s
        else:
            assert not holds_back(streak, [UNPROVEN])


def test_after_a_pause_one_runner_is_tried_at_a_time():
    streak = streak_of(CRASHES_MAX)
    over = after_pause(streak, streak.next_at)

    assert after_pause(streak, streak.next_at - 0.1).is_paused
    assert holds_back(streak, [])
    assert not holds_back(over, [SERVED])
    assert holds_back(over, [SERVED, UNPROVEN])


def test_the_reason_names_how_often_why_and_when_and_stays_short():
    streak = streak_of(CRASHES_MAX)
    long = after_crash(None, RemoteError("x", "y\n" * 10_000, code="load_failed"), 0.0)

    assert crash_reason(streak, streak.next_at - 8) == (
        "5 runners in a row ended before a call in them did, the last one with load_failed: no module; "
        "the next one is started in 8 s"
    )
    assert len(crash_reason(long)) < REASON_MAX + 150
    assert "\n" not in crash_reason(long)
