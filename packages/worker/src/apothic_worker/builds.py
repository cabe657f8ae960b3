"""Builds one environment with uv: an interpreter of this machine, and packages as wheels from the operator's index.

uv runs as the worker, outside of any sandbox. That is safe because nothing of a package runs while it is installed:
source distributions are refused, requirements name distributions only, and what comes from where is the operator's
word alone: uv's and pip's own variables and files of settings. Its output may quote them, so credentials are blanked.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from apothic.wire.images import BUILD_LINE_MAX, ImageSpec
from apothic_worker.interpreters import Interpreter
from apothic_worker.processes import SPARED

BUILD_MAX_S = 1_800.0
TAIL_LINES = 20
"""Lines of the log that the error of a failed build quotes."""

_PLAIN = (
    "HOME", "LANG", "NETRC", "PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
)  # fmt: skip
_PROXY = re.compile(r"(?i)(https?|all|no)_proxy")
_FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}
"""uv's names for what an operator may have set for pip alone."""

_SETS_INDEX = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")
_OURS = ("UV_CACHE_DIR", "UV_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_SYSTEM_PYTHON", "UV_BUILD_CONSTRAINT")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+(?=@)")

OnLine = Callable[[str], None]


class BuildFailed(Exception):
    """The environment cannot be had; the text is for people."""


async def build(image: ImageSpec, interpreter: Interpreter, folder: Path, cache: Path, on_line: OnLine) -> None:
    """Make the environment `folder`/env; what the build says goes to `on_line`, line by line.

    Args:
        folder: Empty, on the file system of `cache`, so that files are linked and not copied.
        cache: uv's cache of this worker.

    Raises:
        BuildFailed: It cannot be made; the text ends with the last lines.
    """
    told: list[str] = []

    def line(text: str) -> None:
        told.append(_blanked(text)[:BUILD_LINE_MAX])
        on_line(told[-1])

    wanted = folder / "requirements.txt"
    wanted.write_text("".join(f"{requirement}\n" for requirement in image.requirements), encoding="utf-8")
    target = folder / "env"
    common = ["--no-progress", "--color", "never", "--cache-dir", str(cache), "--no-python-downloads"]
    venv = [uv_program(), "venv", "--quiet", "--relocatable", "--no-project", "--python", str(interpreter.executable)]
    install = [
        uv_program(),
        "pip",
        "install",
        "--python",
        str(target / "bin" / "python"),
        "--requirements",
        str(wanted),
    ]
    install += ["--only-binary", ":all:", "--compile-bytecode", "--link-mode", "hardlink"]
    try:
        async with asyncio.timeout(BUILD_MAX_S):
            for command in ([*venv, *common, str(target)], [*install, *common]):
                if status := await _run(command, folder, line):
                    raise BuildFailed(_explain(told, status))
    except TimeoutError:
        raise BuildFailed(f"it took longer than {BUILD_MAX_S:.0f} s") from None


async def forget(packages: set[str], folder: Path, cache: Path) -> None:
    """Remove packages from uv's cache, all versions of each; environments that link their files keep them."""
    names = sorted(package for package in packages if _NAME.fullmatch(package))
    if names:
        await _run([uv_program(), "cache", "clean", "--cache-dir", str(cache), "--", *names], folder, lambda _: None)


def uv_program() -> str:
    """Return the path of uv: the one installed with the worker."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def build_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that uv gets of the worker's own: no other program's secrets, pip's settings translated."""
    kept = {name: value for name, value in given.items() if name in _PLAIN or _PROXY.fullmatch(name)}
    kept |= {name: value for name, value in given.items() if name.startswith("UV_") and name not in _OURS}
    for theirs, ours in _FROM_PIP.items():
        if theirs in given and ours not in given and not (ours == "UV_DEFAULT_INDEX" and _sets_index(given)):
            kept[ours] = given[theirs]
    # A company's own authority is known to the system, and not to uv.
    return {"UV_SYSTEM_CERTS": "1", **kept, "PYTHONHASHSEED": "0"}


def _sets_index(given: Mapping[str, str]) -> bool:
    return any(name in given for name in _SETS_INDEX)


async def _run(command: list[str], folder: Path, line: OnLine) -> int:
    """Run a command to its end and return its exit code; when this is cancelled nothing of it is left."""
    loop = asyncio.get_running_loop()
    process = _start(command, folder)
    SPARED.add(process.pid)  # at once: the end of a zygote would take it for an orphan

    def read() -> int:
        with process:
            assert process.stdout is not None
            for data in process.stdout:
                if text := data.decode("utf-8", "replace").replace("\0", "").rstrip():
                    loop.call_soon_threadsafe(line, text)
            return process.wait()

    reading = asyncio.ensure_future(asyncio.to_thread(read))
    try:
        return await asyncio.shield(reading)
    except BaseException:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await reading
        raise
    finally:
        SPARED.discard(process.pid)


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    setpriv = shutil.which("setpriv")  # so that nothing of it outlives a worker that is killed
    return subprocess.Popen(
        [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command,
        cwd=folder,
        env=build_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _blanked(text: str) -> str:
    return _CREDENTIALS.sub("***", text)


def _explain(told: list[str], status: int) -> str:
    """Return why in words where uv's are known, and the last lines; `status` is negative for a signal."""
    text = "\n".join(told[-TAIL_LINES:])
    flat = " ".join(text.split())
    if "lack of valid authentication credentials" in flat:
        why = "the package index refuses the credentials of this worker"
    elif "was not found in the package registry" in flat or "not found in the provided package locations" in flat:
        why = "a package does not exist in the index of this worker; look for a misspelled name"
    elif (
        "no usable wheels" in flat or "building source distributions is disabled" in flat.lower() or "no wheels" in flat
    ):
        why = "a package has no wheel for this Python and machine, and packages are never built from source here"
    elif "invalid peer certificate" in flat:
        why = "the worker does not trust the certificate of its package index; name its authority in SSL_CERT_FILE"
    elif "error sending request" in flat or "Failed to fetch" in flat or "dns error" in flat:
        why = "the package index cannot be reached from this worker"
    elif "No solution found" in flat:
        why = "no versions of the packages fit together"
    elif status == -signal.SIGKILL:
        why = "uv was killed from outside, most likely because the machine ran out of memory"
    elif status < 0:
        why = f"uv was ended by {signal.strsignal(-status) or 'a signal'}"
    else:
        why = f"uv failed with status {status}"
    return f"{why}\n{text}" if text else why
