"""Room on the store's disk: the floor for new work and the ballast, on a disk whose free bytes the test decides."""

import pytest
from structlog.testing import capture_logs

from apothic_server.domain.errors import DiskLow
from apothic_server.store.disk import MIB, Disk, free_bytes
from apothic_server.testing.guarantees import guarantee

FLOOR = 4 * MIB


class Room:
    """A disk on which other programs leave `left` bytes, beside the ballast."""

    def __init__(self, folder):
        self.left = 10 * FLOOR
        self.ballast = folder / "ballast"
        self.disk = Disk(folder, floor_bytes=FLOOR, ballast=self.ballast, free=lambda _: self.free)

    @property
    def free(self):
        return self.left - self.held

    @property
    def held(self):
        return self.ballast.stat().st_blocks * 512 if self.ballast.exists() else 0

    def becomes(self, left):
        self.left = left
        self.disk.look()

    def refuses(self):
        try:
            self.disk.require_room()
        except DiskLow:
            return True
        return False


@pytest.fixture
def room(tmp_path):
    made = Room(tmp_path)
    made.disk.look()
    return made


@guarantee("G14.2", "disk_full_matrix")
def test_a_disk_with_room_gets_a_ballast_that_takes_room_for_real(room):
    assert room.held == FLOOR // 2
    assert not room.refuses()
    assert room.disk.free_bytes == room.left - FLOOR // 2


@guarantee("G14.2", "disk_full_matrix")
@pytest.mark.parametrize(
    ("free", "refuses", "held"),
    [
        (FLOOR, False, FLOOR // 2),
        (FLOOR - 1, True, FLOOR // 2),
        (FLOOR // 4, True, FLOOR // 2),
        (FLOOR // 4 - 1, True, 0),
        (0, True, 0),
    ],
)
def test_below_the_floor_new_work_is_refused_and_below_a_quarter_of_it_the_ballast_goes(room, free, refuses, held):
    room.becomes(free + FLOOR // 2)

    assert room.refuses() is refuses
    assert room.held == held


@guarantee("G14.2", "disk_full_matrix")
def test_room_alone_brings_new_work_and_ballast_back(room):
    room.becomes(0 + FLOOR // 2)
    gone = room.held
    room.becomes(FLOOR)
    only_work = (room.refuses(), room.held)
    room.becomes(FLOOR + FLOOR // 2)

    assert gone == 0
    assert only_work == (False, 0)
    assert (room.refuses(), room.held) == (False, FLOOR // 2)


@guarantee("G14.2", "disk_full_matrix")
def test_a_full_disk_is_told_once_and_not_at_every_look(room):
    with capture_logs() as logs:
        for left in [FLOOR // 2] * 10 + [FLOOR * 2] * 10:
            room.becomes(left)

    assert [line["event"] for line in logs] == ["disk.ballast_given_up", "disk.low", "disk.enough"]


def test_a_ballast_that_does_not_fit_is_given_up_without_an_error(tmp_path):
    huge = 2 * free_bytes(tmp_path) + 2 * MIB
    disk = Disk(tmp_path, floor_bytes=huge, ballast=tmp_path / "ballast", free=lambda _: 2 * huge)
    disk.look()

    assert not (tmp_path / "ballast").exists()
    disk.require_room()


def test_without_a_floor_nothing_is_refused_and_no_file_is_made(tmp_path):
    disk = Disk(tmp_path, floor_bytes=0, ballast=tmp_path / "ballast", free=lambda _: 0)
    disk.look()
    disk.require_room()

    assert list(tmp_path.iterdir()) == []
