"""Which files may be uploaded: no hidden or ignored ones, no environments, no secrets, nothing outside the root."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apothic.errors import InvalidRequestError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".apothicignore")
"""Read in this order in every folder from the root down; later lines win, as in git."""

SECRET_NAMES = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "credentials*.json",
    ".netrc", ".pypirc", ".npmrc", ".git-credentials", ".htpasswd",
)  # fmt: skip
"""File names that are taken for secrets."""

_IS_SECRET = re.compile("|".join(map(fnmatch.translate, SECRET_NAMES))).match
_INSTALLED = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})


@dataclass(frozen=True)
class _Folder:
    """What holds for all files of a folder.

    Attributes:
        real: Where it really is; None when its files may not be looked at.
        is_ignored: Ignore files exclude it or a folder above it.
        specs: Ignore files that speak of its files, each with the path from there to here.
    """

    real: Path | None
    is_ignored: bool
    specs: tuple[tuple[str, GitIgnoreSpec], ...]


class UploadRules:
    """The rules for one app; remembers what it left out.

    Args:
        root: Resolved folder that bounds what may be read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._notes: dict[str, None] = {}
        self._specs: dict[Path, list[GitIgnoreSpec]] = {}
        self._environments: dict[Path, bool] = {}
        self._folders: dict[Path, _Folder] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out and why, in the order of discovery."""
        return tuple(self._notes)

    def note(self, sentence: str) -> None:
        """Remember a sentence for the person who deploys; equal ones count once."""
        self._notes[sentence] = None

    def may_enter(self, folder: Path) -> bool:
        """Whether the files of `folder` may be looked at."""
        return self._folder(folder).real is not None

    def resolve(self, file: Path) -> Path | None:
        """Return where `file` is read from, or None when it is left out.

        Raises:
            InvalidRequestError: The file would be uploaded and looks like a secret (`secret_refused`).
        """
        try:
            mode = os.lstat(file).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        folder = self._folder(file.parent)
        if folder.real is None:
            return None
        real = folder.real / file.name
        if stat.S_ISLNK(mode):
            if not file.exists():
                return self.note(f"{self._shown(file)} is a link to nothing, so it is not uploaded")
            real = file.resolve()
            if self._root not in real.parents:
                return self._note_outside(file)
            if self._folder(real.parent).real is None:
                return None
            mode = os.lstat(real).st_mode
        if not stat.S_ISREG(mode):
            is_folder = stat.S_ISDIR(mode)
            return None if is_folder else self.note(f"{self._shown(file)} is no regular file, so it is not uploaded")
        if _is_ignored(folder, file.name) or _is_ignored(self._folder(real.parent), real.name):
            return self.note(f"{self._shown(file)} is imported but not uploaded, because an ignore file names it")
        if _IS_SECRET(real.name.lower()):
            self.refuse_secret(real, self._shown(file))
        return real

    def is_ignored(self, path: Path, *, is_folder: bool) -> bool:
        """Whether an ignore file excludes a file or folder, or a folder above it."""
        return _is_ignored(self._folder(path.parent), path.name + "/" * is_folder)

    def refuse_secret(self, file: Path, shown: str) -> None:
        """Raise when the name of `file` is that of a secret; `shown` names it in the message."""
        if _IS_SECRET(file.name.lower()):
            raise InvalidRequestError(
                f"{shown} looks like a secret ({file.name}) and is never uploaded: "
                f"do not import it, rename it, or name it in {IGNORE_FILES[1]}.",
                code="secret_refused",
            )

    def _folder(self, folder: Path) -> _Folder:
        """Look at a folder, once."""
        if folder not in self._folders:
            self._folders[folder] = self._seen(folder)
        return self._folders[folder]

    def _seen(self, folder: Path) -> _Folder:
        real = self._opened(folder)
        if folder == self._root:
            return _Folder(real, False, self._specs_from(()))
        if self._root not in folder.parents:
            return _Folder(real, False, ())
        above = self._folder(folder.parent)
        is_ignored = above.is_ignored or _is_excluded(above.specs, folder.name + "/")
        return _Folder(real, is_ignored, self._specs_from(folder.relative_to(self._root).parts))

    def _opened(self, folder: Path) -> Path | None:
        real = folder.resolve()
        if real != self._root and self._root not in real.parents:
            self._note_outside(folder)
            return None
        return None if self._is_closed(folder) or self._is_closed(real) else real

    def _note_outside(self, path: Path) -> None:
        if path.is_symlink() or any(parent.is_symlink() for parent in path.parents if parent != self._root):
            self.note(f"{self._shown(path)} is a link that leaves {self._root}, so it is not uploaded")

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if self._root in path.parents else str(path)

    def _is_closed(self, folder: Path) -> bool:
        """Whether a folder between the root and `folder` is hidden, installed or a virtual environment."""
        if self._root not in folder.parents:
            return False
        names = folder.relative_to(self._root).parts
        if any(name.startswith(".") or name in _INSTALLED for name in names):
            return True
        inside = (self._root.joinpath(*names[: depth + 1]) for depth in range(len(names)))
        return any(self._is_environment(part) for part in inside)

    def _is_environment(self, folder: Path) -> bool:
        if folder not in self._environments:
            self._environments[folder] = (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").is_dir()
        return self._environments[folder]

    def _specs_from(self, names: tuple[str, ...]) -> tuple[tuple[str, GitIgnoreSpec], ...]:
        """Return the ignore files from the root down to a folder, in this order."""
        found: list[tuple[str, GitIgnoreSpec]] = []
        for depth in range(len(names) + 1):
            below = "".join(f"{name}/" for name in names[depth:])
            found += [(below, spec) for spec in self._specs_of(self._root.joinpath(*names[:depth]))]
        return tuple(found)

    def _specs_of(self, folder: Path) -> list[GitIgnoreSpec]:
        if folder not in self._specs:
            found = [folder / name for name in IGNORE_FILES if (folder / name).is_file()]
            self._specs[folder] = [_read_spec(file) for file in found]
        return self._specs[folder]


def _is_ignored(folder: _Folder, name: str) -> bool:
    """Whether ignore files exclude a file; an excluded folder hides everything below it."""
    return folder.is_ignored or _is_excluded(folder.specs, name)


def _is_excluded(specs: tuple[tuple[str, GitIgnoreSpec], ...], name: str) -> bool:
    excluded = False
    for below, spec in specs:
        verdict = spec.check_file(below + name).include
        excluded = excluded if verdict is None else verdict
    return excluded


def _read_spec(file: Path) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8", errors="replace").splitlines())
