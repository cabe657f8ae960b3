"""Users of this machine as the tests play them: a home folder, an environment without settings, commands."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
APOTHIC = Path(sys.executable).with_name("apothic")
DEADLINE_S = 60.0
INSTALLING = re.compile(r"(PIP|UV|SSL)_\w+|REQUESTS_CA_BUNDLE|(?i:https?|all|no)_(?i:proxy)")
"""Variables with which an operator says where packages come from, and how the way there is secured."""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        """The error document of a command that was asked for JSON."""
        return json.loads(self.err.strip().splitlines()[-1])["error"]

    def ok(self):
        """Return this when the command succeeded."""
        assert self.status == 0, f"exit {self.status}\n{self.out}\n{self.err}"
        return self


@dataclass(frozen=True)
class Person:
    """Somebody with a home folder.

    Attributes:
        prefix: Put before every command, to run it as somebody else than the user of the tests.
        installs: Whether packages are installed in this person's programs, as an operator of this machine would.
    """

    home: Path
    prefix: tuple[str, ...] = ()
    installs: bool = False

    def environment(self, extra: Mapping[str, str] | None = None):
        """Return an environment as after a login: nothing of Apothic's is exported."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        if self.installs:
            kept |= {name: value for name, value in os.environ.items() if INSTALLING.fullmatch(name)}
        own = {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "TMPDIR": str(self.tmp),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**kept, **own, **(extra or {})}

    @property
    def tmp(self):
        """Folder for temporary files of this person's programs."""
        folder = self.home.parent / f"{self.home.name}-tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def popen(self, *command, env=None, cwd=None, **options):
        """Start a command."""
        return subprocess.Popen(
            [str(part) for part in (*self.prefix, *command)],
            env=self.environment(env),
            cwd=cwd or self.home,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            text=True,
            **options,
        )

    def run(self, *command, env=None, cwd=None, deadline_s=DEADLINE_S):
        """Run a command to its end."""
        process = self.popen(*command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=deadline_s)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Ran(process.returncode, out, err)

    def apothic(self, *arguments, **options):
        """Run the command line."""
        return self.run(APOTHIC, *arguments, **options)

    def python(self, *arguments, **options):
        """Run Python with the SDK installed."""
        return self.run(sys.executable, *arguments, **options)

    def script(self, text, *arguments, name="script.py", **options):
        """Write a program into the home folder and run it."""
        return self.python(self.write(name, text), *arguments, **options)

    def script_command(self, text, *arguments, name="reader.py"):
        """Write a program into the home folder and return the command that runs it."""
        return (sys.executable, self.write(name, text), *arguments)

    def write(self, name, text):
        """Write a file into the home folder and return its path."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    def copy(self, path):
        """Copy a file of the repository into the home folder."""
        copied = self.home / Path(path).name
        shutil.copyfile(ROOT / path, copied)
        return copied


def says_no_traceback(ran):
    """Whether a command that failed said so in sentences."""
    return "Traceback" not in ran.out + ran.err and ran.err.strip() != ""
