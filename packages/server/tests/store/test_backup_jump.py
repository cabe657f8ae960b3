"""By how much a restore raises what counts."""

from datetime import UTC, datetime, timedelta

from apothic_server.store.backup import JUMP_MIN, jump
from apothic_server.testing.guarantees import guarantee

TAKEN = datetime(2026, 1, 1, tzinfo=UTC)


@guarantee("G5.9", "restore_never_goes_back")
def test_a_second_restore_of_one_backup_begins_beyond_what_the_first_can_have_told():
    first, second = (jump(TAKEN, TAKEN + timedelta(seconds=seconds)) for seconds in (60, 120))

    assert first >= JUMP_MIN
    assert second - first >= 60 * 10_000


@guarantee("G5.9", "restore_never_goes_back")
def test_a_clock_that_was_set_back_does_not_lower_it():
    assert jump(TAKEN, TAKEN - timedelta(days=1)) == JUMP_MIN
