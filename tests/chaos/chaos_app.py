"""The app of the harness: each function does one kind of thing and says so over the socket of the start log."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

from apothic import App

app = App("chaos")

ADDRESS = "@ADDRESS@"
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


def run(token, seconds=0.0):
    say("start", token)
    threading.Event().wait(seconds)
    say("end", token)
    return token


@app.function(memory_mb=64, max_containers=2, max_retries=20, max_pending_tasks=5000)
def quick(token):
    return run(token)


@app.function(memory_mb=64, max_containers=3, max_retries=20, max_pending_tasks=5000)
def slow(token, seconds):
    return run(token, seconds)


@app.function(memory_mb=64, max_containers=6, max_retries=20, max_pending_tasks=5000)
def long(token, seconds):
    """Outlasts the lease of a machine that is cut off."""
    return run(token, seconds)


@app.function(memory_mb=64, max_containers=2, max_retries=20, max_pending_tasks=5000)
def chatty(token):
    say("start", token)
    for number in range(20):
        print(f"{token} {number}", flush=number % 5 == 0)
    say("end", token)
    return token


@app.function(memory_mb=64, max_containers=1, tasks_per_container=4, max_retries=20, max_pending_tasks=5000)
async def fan(token, seconds):
    say("start", token)
    await asyncio.sleep(seconds)
    say("end", token)
    return token


@app.function(memory_mb=64, max_containers=1, max_retries=20, max_pending_tasks=5000)
def flaky(token):
    """Fails the first time."""
    if int(say("start", token)) == 1:
        say("stop", token)
        raise RuntimeError("the first time never works")
    say("end", token)
    return token


@app.function(memory_mb=64, max_containers=1, max_retries=1, max_pending_tasks=5000)
def fails(token):
    say("start", token)
    say("stop", token)
    raise ValueError(token)


@app.function(memory_mb=64, max_containers=1, at_most_once=True, max_pending_tasks=5000)
def once(token):
    return run(token, 0.05)


@app.function(memory_mb=128, max_containers=1, max_retries=20, max_pending_tasks=5000)
def family(token):
    """Starts a child and waits for it."""
    say("start", token)
    told = subprocess.run([sys.executable, "-c", "print(42)"], capture_output=True, text=True, check=True).stdout
    say("end", token)
    return token if told == "42\n" else told


@app.function(memory_mb=64, max_containers=1, max_retries=20, max_pending_tasks=5000)
def large(token):
    """Gives what is kept outside of the store's rows."""
    return run(token) + "." * 100_000


if __name__ == "__main__":
    Path("deployed.json").write_text(json.dumps(str(app.deploy())))
