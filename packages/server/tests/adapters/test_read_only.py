"""Files that are lent cannot be written to by their owner."""

import os

import pytest

from apothic_server.adapters.blobs.files import FileBlobs
from apothic_server.adapters.blobs.read_only import read_only_view
from apothic_server.testing.blobs import ALPHA, digest_of, pieces

DATA = b"some bytes"


@pytest.mark.anyio
async def test_a_lent_file_is_read_only_for_whoever_owns_it(tmp_path):
    blobs = FileBlobs(tmp_path / "blobs")
    await blobs.put(ALPHA, digest_of(DATA), pieces(DATA), size_max=100)
    lent = await blobs.lend(ALPHA, digest_of(DATA))
    if not lent.is_read_only:
        os.close(lent.descriptor)
        pytest.skip("needs root or unprivileged user namespaces, and Linux 5.12")
    me = f"/proc/self/fd/{lent.descriptor}"
    attempts = [
        lambda: os.open(me, os.O_RDWR),
        lambda: os.truncate(me, 0),
        lambda: os.fchmod(lent.descriptor, 0o600),
        lambda: os.utime(lent.descriptor),
        lambda: os.link(me, tmp_path / "mine", follow_symlinks=True),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match=r"Read-only file system|cross-device"):
            attempt()
    mine = os.open(me, os.O_RDONLY)

    assert os.pread(mine, 100, 0) == DATA
    assert await blobs.delete(ALPHA, digest_of(DATA))
    assert os.pread(mine, 100, 0) == DATA
    os.close(mine)
    os.close(lent.descriptor)


def test_there_is_no_view_of_what_is_not_there(tmp_path):
    assert read_only_view(tmp_path / "nothing") is None
