"""User code that attacks its runner, its zygote, its sandbox and the worker behind them."""

import json
from pathlib import Path

import pytest

from apothic.wire import link
from apothic.wire.chunks import unpack
from apothic.wire.limits import ITEM_BATCH_MAX, ITEM_WINDOW_BYTES
from apothic_worker.testing.scripted_server import Deployed, ScriptedServer

pytestmark = pytest.mark.anyio

APP = """
import ctypes, json, os, signal, socket, stat, struct, threading, time

def add(a, b):
    return a + b

def stop_the_zygote():
    print("stopping it", flush=True)
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(600)

def sockets():
    links = {int(name): "/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")}
    return [number for number, path in links.items() if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode)]

def forge(head):
    text = head.encode()
    print("sending", flush=True)
    (number,) = sockets()
    sent = os.write(number, struct.pack(">II", 4 + len(text), len(text)) + text)
    print("sent", sent == len(text) + 8, flush=True)
    time.sleep(600)

def tell_items(first, count, data):
    (number,) = sockets()
    head = json.dumps({"kind": "items", "call": "1", "first": first, "count": count, "encoding": "json"}).encode()
    line = socket.socket(fileno=os.dup(number))
    line.setblocking(True)
    line.sendall(struct.pack(">II", 4 + len(head) + len(data), len(head)) + head + data)

def forge_items(first, count, text):
    tell_items(first, count, text.encode())
    time.sleep(600)

def forge_once(item, head):
    if item == 1:
        (number,) = sockets()
        line = socket.socket(fileno=os.dup(number))
        line.setblocking(True)
        text = head.encode()
        line.sendall(struct.pack(">II", 4 + len(text), len(text)) + text)
        time.sleep(600)
    time.sleep(0.002)

def flood_items():
    data = b'["' + b"x" * 1_000_000 + b'"]'
    for ordinal in range(1_000):
        tell_items(ordinal, 1, data)
    time.sleep(600)

def write_for_ever():
    def write():
        block = b"x" * 99 + b"\\n"
        while True:
            os.write(1, block * 600)
    for _ in range(4):
        threading.Thread(target=write, daemon=True).start()
    time.sleep(0.2)
    return "done"

def attempt(act):
    try:
        act()
        return "done"
    except OSError as error:
        return error.strerror

def reach():
    libc = ctypes.CDLL(None, use_errno=True)
    settings = [os.path.join(folder, name) for folder, _, names in os.walk("/proc/sys") for name in names]
    def is_open_to_us(path):
        try:
            os.close(os.open(path, os.O_WRONLY))
            return True
        except OSError:
            return False
    return {
        "settings": len(settings),
        "writable": [path for path in [*settings, "/proc/sysrq-trigger", "/proc/pressure/cpu"] if is_open_to_us(path)],
        "private": [path for path in ("/etc/ssl/private", "/etc/pki/tls/private") if os.path.exists(path)],
        "certificates": os.path.exists("/etc/ssl/certs") or os.path.exists("/etc/pki/tls/certs"),
        "dev": attempt(lambda: open("/dev/x", "w")),
        "null": attempt(lambda: open("/dev/null", "w").write("x")),
        "shm_bytes": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
        "user_namespace": libc.unshare(0x10000000),
    }
"""

LYING_APP = """
import json, os, socket, stat, struct

def tell(head):
    text = json.dumps(head).encode()
    send(struct.pack(">II", 4 + len(text), len(text)) + text)

def send(data):
    paths = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")]
    (path,) = [path for path in paths if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode)]
    os.write(int(path.rpartition("/")[2]), data)

def add(a, b):
    return a + b

"""


@pytest.fixture(scope="module")
def app(cloud: ScriptedServer) -> Deployed:
    return cloud.deploy({"app.py": APP})


async def still_serves(cloud: ScriptedServer) -> bool:
    """Whether the worker executes a call of another org, on the link it opened first."""
    runner = await cloud.started_runner(cloud.deploy({"app.py": APP}), "add", org="o2")
    return (await cloud.call(runner, 1, 2)).outcome == "succeeded" and len(cloud.links) == 1


async def test_code_that_stops_its_zygote_is_ended_all_the_same(cloud, app):
    runner = await cloud.started_runner(app, "stop_the_zygote")
    order = cloud.assignment(runner)
    await cloud.send(assign=[order])
    await cloud.wait_for(link.Logs, lambda item: item.job == order.job)

    await cloud.send(cancel=[link.Cancel(order.job, order.fence, 0.0)])

    assert (await cloud.finished(order)).outcome == "cancelled"
    again = await cloud.call(await cloud.started_runner(app, "add"), 1, 2)
    assert json.loads(again.value.data) == 3


NESTED = '{"type":"a","message":"b","causes":[' * 480 + "]}" * 480
FORGED = {
    "half a surrogate pair": '{"kind":"error","call":"1","error":{"type":"a","message":"\\ud800","code":"\\udfff"}}',
    "causes of causes": '{"kind":"error","call":"1","error":' + NESTED + "}",
    "an error that is none": '{"kind":"error","call":"1","error":7}',
    "a version that is none": '{"kind":"result","call":"1","encoding":"json","python":"3\\u0000"}',
    "a version of another type": '{"kind":"result","call":"1","encoding":"json","python":[3]}',
    "an encoding of another type": '{"kind":"result","call":"1","encoding":{"json":1},"python":null}',
    "a stream that is none": '{"kind":"log","call":"1","stream":"sys\\u0000tem","text":"x"}',
    "text that is none": '{"kind":"log","call":"1","stream":"stdout","text":"\\ud800"}',
    "a second hello": '{"kind":"hello"}',
    "items of nothing": '{"kind":"items","call":"1"}',
    "items that are none": '{"kind":"items","call":"1","first":0,"count":1,"encoding":"pickle"}',
    "items of another type": '{"kind":"items","call":"1","first":[],"count":{},"encoding":7}',
    "items of nobody": '{"kind":"items","call":"j9","first":0,"count":1,"encoding":"json"}',
    "outcomes of a single call": '{"kind":"done","call":"1","count":0,"is_last":true,"python":null}',
    "deep nonsense": "[" * 20_000,
    "a long number": '{"kind":' + "9" * 10_000 + "}",
}


@pytest.mark.parametrize("head", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_frame_harms_its_own_attempt_only(cloud, app, head):
    runner = await cloud.started_runner(app, "forge")

    order = cloud.assignment(runner, head, timeout_s=2)
    await cloud.send(assign=[order])
    end = await cloud.finished(order)

    assert end.outcome in ("failed", "timed_out")
    assert end.error is not None
    assert "Traceback" not in end.error.traceback
    # A forged line travels by the socket, a printed one by a pipe: which is read first is open.
    assert "sending" in "".join(cloud.lines(order, stream="stdout"))
    assert await still_serves(cloud)


FORGED_ITEMS = {
    "a gap": (5, 1, "[1]"),
    "before the first": (-1, 1, "[1]"),
    "fewer than it says": (0, 9, "[1]"),
    "more than it says": (0, 1, "[1,2]"),
    "half a list": (0, 1, "[1"),
    "deep": (0, 1, "[" * 50_000 + "]" * 50_000),
    "an object": (0, 1, '{"a": 1}'),
}


@pytest.mark.parametrize("batch", FORGED_ITEMS.values(), ids=FORGED_ITEMS.keys())
async def test_forged_items_end_their_own_attempt_and_reach_nobody(cloud, app, batch):
    order = cloud.assignment(await cloud.started_runner(app, "forge_items"), *batch)

    await cloud.send(assign=[order])
    end = await cloud.finished(order)

    assert end.outcome == "failed"
    assert items_of(cloud, order) == []
    assert await still_serves(cloud)


async def test_code_that_goes_on_yielding_beyond_its_window_is_ended(cloud, app):
    order = cloud.assignment(await cloud.started_runner(app, "flood_items"))

    await cloud.send(assign=[order])
    end = await cloud.finished(order)

    assert end.outcome == "failed"
    sent = sum(len(item.data) for item in items_of(cloud, order))
    assert 0 < sent <= ITEM_WINDOW_BYTES + ITEM_BATCH_MAX, "the server was asked for no more"
    assert await still_serves(cloud)


FORGED_OUTCOMES = {
    "an early end": '{"kind":"done","call":"1","count":0,"is_last":true,"python":null}',
    "outcomes without data": '{"kind":"done","call":"1","count":1,"is_last":false,"python":null}',
    "a result of all": '{"kind":"result","call":"1","encoding":"json","python":null}',
    "an error of all": '{"kind":"error","call":"1","error":{"type":"a","message":"b","code":"c"}}',
    "text of nobody": '{"kind":"log","call":"1","item":4,"stream":"stdout","text":"x"}',
    "text of no item": '{"kind":"log","call":"1","stream":"stdout","text":"x"}',
}


@pytest.mark.parametrize("head", FORGED_OUTCOMES.values(), ids=FORGED_OUTCOMES.keys())
async def test_forged_outcomes_end_their_chunk_and_change_no_outcome(cloud, app, head):
    runner = await cloud.started_runner(app, "forge_once")
    end = await cloud.call_items(runner, *[[n, head] for n in range(4)], spread=True)

    assert (end.outcome, end.error.code) == ("failed", "killed_by_signal")
    assert (end.items.done, unpack(end.items.data), end.items.output) == (1, [b"jnull"], [])
    assert await still_serves(cloud)


def items_of(cloud, order):
    return [item for item in cloud.items if isinstance(item, link.Items) and item.job == order.job]


async def test_output_that_never_ends_does_not_hold_the_worker(cloud, app):
    end = await cloud.call(await cloud.started_runner(app, "write_for_ever"))

    assert end.value.data == b'"done"'
    assert await still_serves(cloud)


async def test_a_sandbox_cannot_change_or_read_what_belongs_to_the_machine(cloud, app):
    found = json.loads((await cloud.call(await cloud.started_runner(app, "reach"))).value.data)

    assert found.pop("settings") > 100
    assert found.pop("shm_bytes") <= 256 * 1024 * 1024
    assert found == {
        "writable": [],
        "private": [],
        "certificates": Path("/etc/ssl/certs").exists() or Path("/etc/pki/tls/certs").exists(),
        "dev": "Read-only file system",
        "null": "done",
        "user_namespace": -1,
    }


LIES = {
    "an end without a name": 'tell({"kind": "exited"})',
    "an end of nobody": 'tell({"kind": "exited", "runner": "r0", "code": {}, "signal": "x"})',
    "a failure without an error": 'tell({"kind": "load_failed"})',
    "ready without more": 'tell({"kind": "ready"})',
    "bytes that are no frame, and death": 'send(b"junk"); os._exit(3)',
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_an_app_that_lies_on_the_control_socket_harms_itself_only(cloud, lie):
    code = LYING_APP + lie

    end = await cloud.call(await cloud.started_runner(cloud.deploy({"app.py": code}), "add"), 1, 2)

    assert end.outcome in ("succeeded", "failed", "lost")
    assert end.error is None or "Traceback" not in end.error.traceback
    assert await still_serves(cloud)
