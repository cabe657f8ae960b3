"""`make demo`: start a cloud in a temporary folder, run the sample and a batch job on it, stop it, leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

READY_S = 120.0
STOP_S = 60.0


def main() -> int:
    """Run the demo in the repository that holds this installation; returns the exit status."""
    examples = Path.cwd() / "examples"
    if not (examples / "hello_world.py").exists():
        say("run this from the repository's root: examples/hello_world.py is not here")
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="apothic-demo-") as folder, cloud(Path(folder)) as environment:
        with step("deploy and call examples/hello_world.py"):
            _run([str(examples / "hello_world.py")], environment)
        with step("deploy examples/word_count.py and run a batch job on it"):
            _run([str(examples / "word_count.py")], environment)
    say(f"done in {time.monotonic() - began:.1f} s; nothing is left running")
    say("start a lasting cloud with   make up")
    say("and call it from another shell with   .venv/bin/python examples/hello_world.py")
    return 0


@contextmanager
def cloud(folder: Path) -> Generator[dict[str, str]]:
    """Run `apothic up` in an empty folder; yield the environment in which clients find it.

    Raises:
        SystemExit: It did not start; the text is its log.
    """
    endpoint = folder / "endpoint.json"
    command = [sys.executable, "-P", "-m", "apothic", "up", "--port", "0", "--data", str(folder / "data")]
    with step("start a cloud"):
        log = (folder / "up.log").open("wb")
        server = subprocess.Popen(
            [*command, "--endpoint", str(endpoint)], stdout=log, stderr=log, start_new_session=True
        )
        try:
            told = _wait_for(endpoint, server, folder / "up.log")
        except BaseException:
            _stop(server, folder / "data")
            raise
    try:
        yield {**os.environ, "APOTHIC_BASE_URL": told["url"], "APOTHIC_API_KEY": told["key"]}
    finally:
        began = time.monotonic()
        _stop(server, folder / "data")  # first: nobody may read any more what is said
        log.close()
        say(f"— stop the cloud\n  took {time.monotonic() - began:.2f} s")


def _wait_for(endpoint: Path, server: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if endpoint.exists():
            return json.loads(endpoint.read_text())
        if server.poll() is not None:
            raise SystemExit(f"the cloud did not start:\n{log.read_text()}")
        time.sleep(0.02)
    raise SystemExit(f"the cloud was not ready within {READY_S:.0f} s:\n{log.read_text()}")


def _stop(server: subprocess.Popen[bytes], data: Path) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        subprocess.run([sys.executable, "-P", "-m", "apothic", "down", "--data", str(data)], check=False)


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    status = subprocess.run([sys.executable, *arguments], env=environment, check=False).returncode
    if status:
        raise SystemExit(status)


@contextmanager
def step(what: str) -> Generator[None]:
    """Say what is done, and afterwards how long it took."""
    say(f"— {what}")
    began = time.monotonic()
    yield
    say(f"  took {time.monotonic() - began:.2f} s")


def say(text: str) -> None:
    """Print one line at once, so that it comes before what a program started next prints."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
