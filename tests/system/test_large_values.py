"""Values far above what one request carries: through arguments and results, and nobody's memory grows with them."""

import hashlib
import json
from pathlib import Path

import pytest

from .processes import descendants

MIB = 1024 * 1024
GROWTH_MAX = 64 * MIB

APP = """
    import hashlib, pickle
    from apothic import App

    app = App("large")

    class Block:
        '''Holds a buffer that travels out of band, as arrays do.'''

        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return Block, (pickle.PickleBuffer(self.data),)

    def digest(block):
        return hashlib.sha256(block.data).hexdigest()

    @app.function(memory_mb=1024)
    def echo(block):
        return digest(block), block

    @app.function(memory_mb=512)
    def nested(size):
        block = Block(bytes(size))
        told, back = echo.remote(block)
        return told == digest(back), type(back.data).__name__

    @app.function(memory_mb=512)
    async def text(count):
        return "x" * count

    @app.function(memory_mb=256)
    def tamper(sha256, size):
        import os
        from apothic._runtime.large import open_value
        from apothic.wire.large import Reference

        descriptor = open_value(Reference(sha256, size))
        try:
            os.fchmod(descriptor, 0o600)
        except OSError:
            pass
        try:
            with open(f"/proc/self/fd/{descriptor}", "r+b", buffering=0) as file:
                file.write(b"tampered with")
        except OSError:
            pass
        return os.fstat(descriptor).st_size == size
"""


@pytest.fixture(scope="module")
def large_app(cloud, person):
    """The app, deployed; the program of each test imports it."""
    person.write("large_app.py", APP)
    person.python("-c", "import large_app; large_app.app.deploy()").ok()


def peaks(cloud):
    """Return the greatest memory so far of the server and the worker, in bytes, by process."""
    found = {}
    for pid in (cloud.pid, *descendants(cloud.pid)):
        folder = Path("/proc", str(pid))
        told = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        program = b" ".join((folder / "cmdline").read_bytes().split(b"\0")[:4])
        if (pid == cloud.pid or b"apothic_worker" in program) and "VmHWM" in told:
            found[pid] = int(told["VmHWM"].split()[0]) * 1024
    return found


def test_a_value_of_256_mib_goes_both_ways_and_fills_no_memory(cloud, large_app, person):
    program = """
        import json, sys
        from large_app import Block, digest
        from apothic import RemoteFunction
        block = Block(bytearray(int(sys.argv[1]) * 1024 * 1024))
        block.data[::4096] = bytes(range(256)) * (len(block.data) // 4096 // 256)
        told, back = RemoteFunction.from_name("large", "echo").remote(block)
        back.data[0] = 1
        print(json.dumps([told == digest(block), back.data[1:] == block.data[1:], len(back.data)]))
    """
    assert json.loads(person.script(program, "2").ok().out) == [True, True, 2 * MIB]
    before = peaks(cloud)

    assert json.loads(person.script(program, "256").ok().out) == [True, True, 256 * MIB]

    after = peaks(cloud)
    grown = {pid: after[pid] - before[pid] for pid in before if pid in after}
    assert len(grown) >= 2
    assert max(grown.values()) < GROWTH_MAX, grown
    assert "value.not_handed_over" not in (cloud.data / "worker.log").read_text()


@pytest.fixture(params=["handed over", "over HTTP"])
def way(request, cloud):
    """How values travel: as between processes of one machine, and as between machines."""
    place = cloud.data / "values.sock"
    if request.param == "over HTTP":
        place.rename(cloud.data / "away.sock")
    yield
    if request.param == "over HTTP":
        (cloud.data / "away.sock").rename(place)


def test_spawned_jobs_asyncio_and_user_code_carry_large_values_too(cloud, large_app, person, way):
    ran = person.script(
        """
        import asyncio
        from apothic import RemoteFunction
        from large_app import Block, digest
        echo, nested, text = (RemoteFunction.from_name("large", name) for name in ("echo", "nested", "text"))
        block = Block(b"abc" * 1_000_000)
        told, back = echo.spawn(block).wait()
        assert told == digest(block) == digest(back), told
        assert asyncio.run(text.aio.remote(3_000_000)) == "x" * 3_000_000
        print(nested.remote(3_000_000))
        """
    ).ok()

    assert ran.out == "(True, 'memoryview')\n"


def test_user_code_cannot_change_a_stored_value_that_it_may_read(cloud, large_app, person):
    program = """
        import sys
        from apothic import RemoteFunction
        from large_app import Block
        if len(sys.argv) == 2:
            RemoteFunction.from_name("large", "echo").remote(Block(sys.argv[1].encode() * 1_000_000))
        else:
            print(RemoteFunction.from_name("large", "tamper").remote(sys.argv[1], int(sys.argv[2])))
    """
    before = set(stored(cloud))
    person.script(program, "own").ok()
    new = {path: digest(path) for path in set(stored(cloud)) - before}

    for path in new:
        assert person.script(program, path.name, str(path.stat().st_size)).ok().out == "True\n"
    assert new
    assert {path: digest(path) for path in new} == {path: path.name for path in new}


def stored(cloud):
    """Return the files of stored values."""
    return [path for path in (cloud.data / "values").glob("*/??/*") if len(path.name) == 64]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
