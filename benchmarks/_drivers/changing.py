"""The code that changes: a folder with a module that is written anew for each deploy, beside a large one that stays."""

from __future__ import annotations

from pathlib import Path

BALLAST_BYTES = 1_000_000


def lay_out(folder: Path, app: str) -> Path:
    """Write the folder's files; return that of the app."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").touch()
    (folder / "ballast.py").write_text("#" * BALLAST_BYTES + "\n")
    change(folder, 0)
    (folder / "redeployed.py").write_text(app)
    return folder / "redeployed.py"


def change(folder: Path, number: int) -> None:
    """Write the module that changes."""
    (folder / "changing.py").write_text(f"NUMBER = {number}\n")
