"""The executor `process`: no isolation but a session of its own. For trusted code, and where no sandbox works (D16)."""

from __future__ import annotations

import os
import subprocess
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
from apothic_worker.folders import remove
from apothic_worker.processes import become_subreaper, kill_children_but, kill_tree


@dataclass
class _Started:
    process: subprocess.Popen[bytes]
    archive: str
    scratch: Path
    live: set[int]

    def kill(self) -> None:
        """Send KILL to the tree below the zygote, which adopts every orphan of it."""
        kill_tree(self.process.pid)

    def cleanup(self) -> None:
        """Kill what the zygote's end left to this process, and remove the private temporary folder."""
        self.live.discard(self.process.pid)
        kill_children_but(self.live)
        remove(self.scratch)


def _workdir(launch: Launch, scratch: Path) -> Path:
    """Return where to begin: nothing is mounted, so in place of an absolute folder that is not here a private one."""
    wanted = Path("/app", launch.workdir)
    if wanted.is_relative_to("/app"):
        return launch.archive / wanted.relative_to("/app")
    return wanted if wanted.is_dir() else scratch


class ProcessExecutor:
    """Starts zygotes as plain processes of the worker's own user.

    Args:
        scratch: Folder for the temporary folders of zygotes.
        trust_user_code: Serve also as root, and more than one org.

    Raises:
        ExecutorUnavailable: The worker is root and user code is not trusted.
    """

    name = "process"
    isolation: tuple[str, ...] = ()

    def __init__(self, scratch: Path, *, trust_user_code: bool) -> None:
        if os.geteuid() == 0 and not trust_user_code:
            raise ExecutorUnavailable(
                "the executor `process` would run user code as root; start the worker as another user, "
                "or add --trust-user-code when all of the code is yours"
            )
        self._scratch = scratch
        self._trust = trust_user_code
        self._org: str | None = None
        self._live: set[int] = set()
        become_subreaper()

    def refusal(self, org: str) -> str | None:
        """Only the first org seen may run here, unless user code is trusted."""
        if self._trust or self._org in (None, org):
            self._org = org
            return None
        return "the executor `process` keeps nothing apart, so this worker runs the code of one organisation only"

    def mount_problem(self, place: str) -> str | None:
        """Nothing can be mounted for a plain process."""
        return f"files at {place} need the executor `sandbox`; add them at a path below the working folder instead"

    def start(self, launch: Launch) -> Zygoted:
        """Start a zygote in a new session with a private temporary folder."""
        scratch = self._scratch / launch.name
        scratch.mkdir(mode=0o700)
        environment = launch.environment
        python = launch.interpreter.executable if environment is None else environment / "bin" / "python"
        has_packages = environment is not None
        command = zygote_command(str(python), str(launch.tree), launch.control, has_packages=has_packages)
        shown = str(environment) if environment is not None else ""
        process = subprocess.Popen(
            inside_group(command, launch.group),
            stdin=subprocess.DEVNULL,
            stdout=launch.output,
            stderr=launch.output,
            cwd=_workdir(launch, scratch),
            env=user_environment(str(scratch), str(launch.door), shown, launch.variables),
            pass_fds=(launch.control,),
            start_new_session=True,
        )
        self._live.add(process.pid)
        return _Started(process, str(launch.archive), scratch, self._live)
