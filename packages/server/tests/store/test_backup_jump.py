"""By how much a restore raises what counts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apothic_server.store.backup import JUMP_MIN, jump, writing
from apothic_server.store.errors import StoreError
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


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda _: Path("/dev/full").write_bytes(b"x"), "disk_full"),
        (lambda folder: folder.mkdir(), "backup_exists"),
        (lambda folder: (folder / "missing" / "file").write_bytes(b"x"), "backup_unwritable"),
    ],
)
def test_what_the_disk_says_against_a_backup_has_a_code_of_its_own(tmp_path, write, code):
    with pytest.raises(StoreError) as refused, writing(tmp_path):
        write(tmp_path)

    assert refused.value.code == code
