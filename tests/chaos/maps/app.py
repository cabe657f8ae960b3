"""The app of the harness for maps: items tell over the socket of the start log when they begin and end."""

import asyncio
import json
import socket
import threading
import time
from pathlib import Path

from apothic import App

app = App("chaosmaps")

ADDRESS = "@ADDRESS@"
ITEM_S, LONG_S = 0.008, 0.3
_lock = threading.Lock()
_link = None


def say(verb, token):
    """Tell the harness; return its answer."""
    global _link
    with _lock:
        if _link is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect("\0" + ADDRESS)
            _link = connection.makefile("rwb", buffering=0)
        _link.write(f"{verb} {token}\n".encode())
        return _link.readline().decode().strip()


def begin(item, rest):
    """Tell of the beginning; return the item's token, its value and how long it takes."""
    tag, number, does = (item, *rest) if rest else item
    token = f"{tag}-{number}"
    count = int(say("start", token))
    if does == "say":
        for line in range(2):
            print(f"{token} {count} {line}")
    if does == "fail" or (does == "flaky" and count == 1):
        say("stop", token)
        raise ValueError(token)
    return token, tag * 10**9 + number * number, LONG_S if does == "long" else ITEM_S


def run(item, rest):
    token, value, seconds = begin(item, rest)
    time.sleep(seconds)
    say("end", token)
    return value


@app.function(memory_mb=64, max_containers=4, max_retries=20)
def steady(item, *rest):
    return run(item, rest)


@app.function(memory_mb=64, max_containers=2, tasks_per_container=3, max_retries=20)
async def fan(item, *rest):
    token, value, seconds = begin(item, rest)
    await asyncio.sleep(seconds)
    say("end", token)
    return value


@app.function(memory_mb=64, max_containers=3, max_retries=1)
def weak(item, *rest):
    return run(item, rest)


@app.function(memory_mb=64, max_containers=3)
def plain(item, *rest):
    return run(item, rest)


if __name__ == "__main__":
    Path("maps_deployed.json").write_text(json.dumps(str(app.deploy())))
