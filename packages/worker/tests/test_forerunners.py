"""What a start knows of the starts before it: only what the lock, the boot and the groups prove."""

import json
import os

import pytest

from apothic.wire.ids import make_key
from apothic.wire.limits import FORERUNNERS_MAX
from apothic_worker.folders import RECORD, lock_folder, record
from apothic_worker.forerunners import Place, known_dead, place_of

BEFORE, EARLIER = make_key(1, 1), make_key(1, 2)


@pytest.fixture
def place(tmp_path):
    """The place of a start, whose record is written as by one that was killed."""
    lock = lock_folder(tmp_path, wait_s=0.0)
    found = place_of(lock)
    record(tmp_path, BEFORE, boot=found.boot, lock=found.lock, forerunners=[EARLIER])
    os.close(lock)
    return found


def test_the_next_start_in_the_same_place_knows_the_one_before(tmp_path, place):
    lock = lock_folder(tmp_path, wait_s=0.0)
    again = place_of(lock)
    os.close(lock)

    assert known_dead(tmp_path, again, is_swept=True) == [EARLIER, BEFORE]


def test_where_its_user_code_may_live_only_what_was_known_before_is_known(tmp_path, place):
    assert known_dead(tmp_path, place, is_swept=False) == [EARLIER]


@pytest.mark.parametrize(
    "other",
    [lambda place: Place("another-boot", place.lock), lambda place: Place(place.boot, (place.lock[0], 1))],
    ids=["boot", "copy"],
)
def test_elsewhere_nothing_is_known(tmp_path, place, other):
    assert known_dead(tmp_path, other(place), is_swept=True) == []


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"], ids=["absent", "empty", "blank", "garbled"])
def test_where_the_boot_is_hidden_a_worker_starts_and_knows_nothing(tmp_path, content):
    hidden = tmp_path / "boot_id"
    if content is not None:
        hidden.write_bytes(content)
    lock = lock_folder(tmp_path, wait_s=0.0)
    found = place_of(lock, hidden)
    record(tmp_path, BEFORE, boot=found.boot, lock=found.lock, forerunners=[EARLIER])
    again = place_of(lock, hidden)
    os.close(lock)

    assert found == again
    assert known_dead(tmp_path, again, is_swept=True) == []


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"incarnation": 1}'])
def test_a_record_that_says_nothing_is_no_proof(tmp_path, place, content):
    (tmp_path / RECORD).unlink()
    if content is not None:
        (tmp_path / RECORD).write_text(content)

    assert known_dead(tmp_path, place, is_swept=True) == []


def test_what_is_told_is_bounded_and_the_newest_stay(tmp_path, place):
    told = json.loads((tmp_path / RECORD).read_text())
    many = [make_key(2, number) for number in range(FORERUNNERS_MAX + 4)]
    (tmp_path / RECORD).write_text(json.dumps({**told, "forerunners": [*many, 7, "no id"]}))

    assert known_dead(tmp_path, place, is_swept=True) == [*many, BEFORE][-FORERUNNERS_MAX:]
