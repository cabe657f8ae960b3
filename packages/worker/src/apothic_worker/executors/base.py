"""What every executor does: start one zygote in its own isolation, kill all of it, leave nothing behind."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from apothic.wire.attempts import SOCKET_VARIABLE
from apothic_worker.door import SOCKET
from apothic_worker.interpreters import Interpreter
from apothic_worker.limits import Group

BOOT = "import sys; sys.path.append(sys.argv[1]); from apothic._runtime.zygote import main; main(int(sys.argv[2]))"
"""The program of a zygote; its arguments are the runtime tree and the number of its control socket."""

_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'


class ExecutorUnavailable(Exception):
    """The executor does not work on this machine; the text says why and what to do."""


@dataclass(frozen=True)
class Launch:
    """One zygote to start.

    Attributes:
        name: Unique among live zygotes of this worker.
        interpreter: Runs the user code.
        tree: The runtime tree.
        archive: Folder with the deployment's files.
        control: Descriptor of the zygote's end of the control socket.
        output: Descriptor that takes what is written outside of runners.
        group: The cgroup to be in before the first instruction.
        door: Folder with the socket `api.sock` that leads to the control plane.
        environment: Virtual environment whose interpreter and packages are used instead; None for the bare one.
        variables: Environment variables of the image.
        workdir: Where to begin: absolute, or below the archive; empty for the archive.
        mounts: Files and folders of this machine by the absolute path at which user code finds them, too.
    """

    name: str
    interpreter: Interpreter
    tree: Path
    archive: Path
    control: int
    output: int
    group: Group
    door: Path
    environment: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    workdir: str = ""
    mounts: Mapping[str, Path] = field(default_factory=dict[str, Path])


class Zygoted(Protocol):
    """A started zygote with its isolation."""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that ends when the zygote has ended."""
        ...

    @property
    def archive(self) -> str:
        """Path of the archive as the zygote sees it."""
        ...

    def kill(self) -> None:
        """Send KILL to the zygote and to all that came from it. Does not wait."""
        ...

    def cleanup(self) -> None:
        """Remove what was made for it; called once, when `process` has ended."""
        ...


class Executor(Protocol):
    """Starts zygotes."""

    @property
    def name(self) -> str:
        """`sandbox` or `process`."""
        ...

    @property
    def isolation(self) -> tuple[str, ...]:
        """The parts of isolation really applied."""
        ...

    def refusal(self, org: str) -> str | None:
        """Why code of this org may not run here, or None."""
        ...

    def mount_problem(self, place: str) -> str | None:
        """Why nothing can be shown at this path, or None."""
        ...

    def start(self, launch: Launch) -> Zygoted:
        """Start a zygote; returns when its process exists."""
        ...


def zygote_command(executable: str, tree: str, control: int, *, has_packages: bool) -> list[str]:
    """Return the command of a zygote: no packages but those of an environment, no variables, no bytecode written."""
    return [executable, "-I", *([] if has_packages else ["-S"]), "-B", "-c", BOOT, tree, str(control)]


def inside_group(command: Sequence[str], group: Group) -> list[str]:
    """Return a command that enters the group first, so that nothing it starts was ever outside."""
    if not group.entries:
        return list(command)
    return ["/bin/sh", "-c", _ENTER, "sh", *map(str, group.entries), "--", *command]


def user_environment(
    home: str, door: str, environment: str = "", variables: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return all variables of user code; `door` is the folder of its socket as it sees it, as is `environment`."""
    path = "/usr/local/bin:/usr/bin:/bin"
    if environment:
        path = f"{environment}/bin:{path}"
    fixed = {"PATH": path, "LANG": "C.UTF-8", "HOME": home, "TMPDIR": home}
    return {**fixed, **(variables or {}), SOCKET_VARIABLE: f"{door}/{SOCKET}"}
