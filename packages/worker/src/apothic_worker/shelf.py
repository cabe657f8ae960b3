"""The folders of environments as they lie on disk: which there are, how large and how old, what is in them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import cast

from apothic.wire.images import HeldImage

RECORD = "environment.json"


def record(folder: Path, size: int, boot: str) -> None:
    """Write what is known of an environment; `boot` names the run of the machine it is whole in, empty for all."""
    half = folder / f".{RECORD}"
    half.write_text(json.dumps({"size_bytes": size, "boot": boot}))
    half.replace(folder / RECORD)


def recorded(folder: Path) -> dict[str, object] | None:
    """Return what was written of an environment; None when that cannot be read."""
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return cast("dict[str, object]", found) if isinstance(found, dict) else None


def size_recorded(folder: Path) -> int:
    """Return the bytes that were counted when an environment was built; 0 when that is not known."""
    size = (recorded(folder) or {}).get("size_bytes")
    return size if isinstance(size, int) else 0


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder, each as often as it has a name there."""
    return sum(Path(where, name).lstat().st_size for where, _, names in os.walk(folder) for name in names)


def disk_bytes(folder: Path) -> int:
    """Return what a folder takes on its disk: a file with several names counts once."""
    seen: set[int] = set()
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                found = Path(where, name).lstat()
            except FileNotFoundError:  # something is removed or built meanwhile
                continue
            if found.st_ino not in seen:
                seen.add(found.st_ino)
                total += found.st_blocks * 512
    return total


def packages_in(folders: list[Path]) -> set[str]:
    """Return the names of the distributions that environments have."""
    found = (path for folder in folders for path in folder.glob("env/lib/python*/site-packages/*.dist-info"))
    return {path.name.removesuffix(".dist-info").rpartition("-")[0] for path in found}


def held(folders: list[Path]) -> list[HeldImage]:
    """Return what is told of environments; one that is gone, or was never whole, is left out."""
    found: list[HeldImage] = []
    for folder in folders:
        with suppress(OSError):
            built_at, used_at = (folder / RECORD).stat().st_mtime, folder.stat().st_mtime
            found.append(HeldImage(folder.name, size_recorded(folder), built_at, max(built_at, used_at)))
    return found
