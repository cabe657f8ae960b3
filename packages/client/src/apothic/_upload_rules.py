"""Which files may be uploaded: no hidden or ignored ones, no environments, no secrets, nothing outside the root."""

from __future__ import annotations

import fnmatch
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

_INSTALLED = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})


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

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out and why, in the order of discovery."""
        return tuple(self._notes)

    def note(self, sentence: str) -> None:
        """Remember a sentence for the person who deploys; equal ones count once."""
        self._notes[sentence] = None

    def may_enter(self, folder: Path) -> bool:
        """Whether the files of `folder` may be looked at."""
        real = folder.resolve()
        if real != self._root and self._root not in real.parents:
            self._note_outside(folder)
            return False
        return not self._is_closed(folder) and not self._is_closed(real)

    def resolve(self, file: Path) -> Path | None:
        """Return where `file` is read from, or None when it is left out.

        Raises:
            InvalidRequestError: The file would be uploaded and looks like a secret (`secret_refused`).
        """
        if not file.is_file():
            return None
        real = file.resolve()
        if self._root not in real.parents:
            self._note_outside(file)
            return None
        if not self.may_enter(file.parent) or not self.may_enter(real.parent):
            return None
        if self._is_ignored(file) or self._is_ignored(real):
            self.note(f"{self._shown(file)} is imported but not uploaded, because an ignore file names it")
            return None
        self.refuse_secret(real, self._shown(file))
        return real

    def refuse_secret(self, file: Path, shown: str) -> None:
        """Raise when the name of `file` is that of a secret; `shown` names it in the message."""
        if any(fnmatch.fnmatchcase(file.name.lower(), pattern) for pattern in SECRET_NAMES):
            raise InvalidRequestError(
                f"{shown} looks like a secret ({file.name}) and is never uploaded: "
                f"do not import it, rename it, or name it in {IGNORE_FILES[1]}.",
                code="secret_refused",
            )

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

    def _is_ignored(self, file: Path) -> bool:
        """Whether ignore files exclude `file` or a folder above it; an excluded folder hides everything below it."""
        if self._root not in file.parents:
            return False
        names = file.relative_to(self._root).parts
        depths = range(1, len(names) + 1)
        return any(self._is_excluded(names[:depth], is_folder=depth < len(names)) for depth in depths)

    def _is_excluded(self, names: tuple[str, ...], *, is_folder: bool) -> bool:
        excluded = False
        for depth in range(len(names)):
            path = "/".join(names[depth:]) + ("/" if is_folder else "")
            for spec in self._specs_of(self._root.joinpath(*names[:depth])):
                verdict = spec.check_file(path).include
                excluded = excluded if verdict is None else verdict
        return excluded

    def _specs_of(self, folder: Path) -> list[GitIgnoreSpec]:
        if folder not in self._specs:
            found = [folder / name for name in IGNORE_FILES if (folder / name).is_file()]
            self._specs[folder] = [_read_spec(file) for file in found]
        return self._specs[folder]


def _read_spec(file: Path) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8", errors="replace").splitlines())
