"""The files of the repository: what git tracks or would track, read once."""

import subprocess
from functools import cache
from pathlib import Path

from apothic_server.testing.skips import needs

ROOT = Path(__file__).parents[2]


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return the files git tracks, and those it would add, that are on disk, sorted."""
    git = needs("git", package="git")
    command = [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = {ROOT / name for name in listed.split("\0") if name}
    return tuple(sorted(path for path in paths if path.is_file()))


def documents() -> list[Path]:
    """Return the Markdown files of the repository."""
    return [path for path in tracked_files() if path.suffix == ".md"]
