"""The folder of the embedded server: what lies where, whether it is ours, and who holds it.

    data/           PostgreSQL's own folder
    data.new/       the same while it is being made; renamed when complete, removed by the next start otherwise
    socket/         the server's socket, 0700
    password        of the one user, 0600
    postgres.log    and postgres.log.1, the one before
    lock            held by the one cloud that uses the folder

Nothing above the folder is ever changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from apothic_server.store.errors import StoreError

LOG_BYTES_MAX = 4 * 1024 * 1024
SOCKET_PATH_MAX = 107
"""Longest path of a Unix socket in bytes, set by the kernel."""

_SOCKET_NAME = "/.s.PGSQL.5432"
_OURS = frozenset({"data", "data.new", "socket", "password", "password.new", "postgres.log", "postgres.log.1", "lock"})
_SHORT = "/tmp"  # noqa: S108 - a folder of ours in it is made closed to others, or checked to be so
_ALLOWED = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """Paths inside the folder, and the user whose processes work in it.

    Attributes:
        root: The folder; absolute.
        server_uid: User id that owns `data` and runs the server. The folder itself belongs to us.
    """

    root: Path
    server_uid: int

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def staged(self) -> Path:
        return self.root / "data.new"

    @property
    def password(self) -> Path:
        return self.root / "password"

    @property
    def log(self) -> Path:
        return self.root / "postgres.log"

    def claim(self) -> int:
        """Make the folder when missing, check that it is ours, and hold it alone.

        Returns:
            A file descriptor; closing it, or the end of this process, lets the folder go.

        Raises:
            StoreError: `data_folder_owner`, `data_folder_foreign`, `data_folder_busy` or `data_folder_unusable`.
                Nothing was changed then, except that a missing folder may have been made.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            self._check_content()
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"the store's folder {self.root} cannot be used: {error.strerror}", code="data_folder_unusable"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"the store's folder {self.root} is in use by another cloud that is running", code="data_folder_busy"
            ) from error
        self.root.chmod(0o700 if self.is_same_user else 0o711)
        return descriptor

    @property
    def is_same_user(self) -> bool:
        """Whether the server's processes run as our own user, in a user namespace or not."""
        return self.server_uid == os.geteuid()

    def make_folder(self, path: Path) -> None:
        """Make one folder of mode 0700 that belongs to the server's user."""
        path.mkdir(mode=0o700)
        self._hand_over(path)

    def read_or_make_password(self) -> str:
        """Return the password; the first time a random one is written durably.

        Raises:
            StoreError: `data_folder_foreign`; there is a database whose password file is missing.
        """
        if self.password.exists():
            return self.password.read_text("ascii").strip()
        if self.data.exists():
            raise StoreError(
                f"{self.data} is there but its password file {self.password} is missing", code="data_folder_foreign"
            )
        text = secrets.token_urlsafe(32)
        staged = self.root / "password.new"
        staged.unlink(missing_ok=True)
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._hand_over(staged)
        staged.rename(self.password)
        sync_folder(self.root)
        return text

    def check_version(self, major: int) -> None:
        """Compare the version that made `data` with that of the programs.

        Raises:
            StoreError: `data_folder_version`.
        """
        made_by = (self.data / "PG_VERSION").read_text("ascii").strip()
        if made_by != str(major):
            raise StoreError(
                f"the data in {self.root} was made by PostgreSQL {made_by} and the programs here are version {major};"
                f" use programs of version {made_by}, or dump and load the data",
                code="data_folder_version",
            )

    def remove_staged(self) -> None:
        """Remove what an interrupted first start left."""
        if self.staged.exists():
            shutil.rmtree(self.staged)

    def keep_staged(self) -> None:
        """Make the complete staged data the data; after a crash it is there as a whole or not at all."""
        self.staged.rename(self.data)
        sync_folder(self.root)

    def make_socket_folder(self) -> Path:
        """Return the folder for the socket, empty: in this one, or a short one when the path is too long.

        Raises:
            StoreError: `data_folder_unusable`; somebody else made the short folder.
        """
        path = self._socket_folder()
        try:
            self.make_folder(path)
        except FileExistsError:
            found = path.lstat()
            if found.st_uid != self.server_uid or found.st_mode & 0o170777 != 0o040700:
                raise StoreError(
                    f"{path} is not a folder of the store's user alone; remove it", code="data_folder_unusable"
                ) from None
            # A killed server's socket and its lock; nothing works in the folder now, and its pid may be another's.
            for left in path.glob(".s.PGSQL.*"):
                left.unlink()
        return path

    def remove_socket_folder(self, path: Path) -> None:
        """Remove a short socket folder after the server has stopped; the one inside the folder stays."""
        if path.parent != self.root and path.is_dir():
            shutil.rmtree(path)

    def open_log(self) -> int:
        """Return a descriptor for appending to the log, cut before when it was too long."""
        self.trim_log()
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def trim_log(self) -> None:
        """Move a log that passed `LOG_BYTES_MAX` to `postgres.log.1`, cut to that size; the server keeps writing."""
        if not self.log.exists() or self.log.stat().st_size <= LOG_BYTES_MAX:
            return
        with self.log.open("r+b") as file:
            file.seek(-LOG_BYTES_MAX, os.SEEK_END)
            (self.root / "postgres.log.1").write_bytes(file.read(LOG_BYTES_MAX))
            file.truncate(0)

    def _check_owner(self) -> None:
        expected = {self.root: os.geteuid(), self.data: self.server_uid}
        for path, uid in expected.items():
            owner = path.stat().st_uid if path.exists() else uid
            if owner != uid:
                raise StoreError(
                    f"{path} belongs to user {owner}, not to user {uid}; start as the user that made it, with the same"
                    " --pg-user, or choose another folder",
                    code="data_folder_owner",
                )

    def _check_content(self) -> None:
        strangers = {entry.name for entry in self.root.iterdir()} - _OURS - _ALLOWED
        if strangers and not self.password.exists():
            raise StoreError(
                f"{self.root} is not empty and no store of ours (it holds {min(strangers)}); choose another folder",
                code="data_folder_foreign",
            )

    def _hand_over(self, path: Path) -> None:
        if not self.is_same_user:
            os.chown(path, self.server_uid, -1)

    def _socket_folder(self) -> Path:
        inside = self.root / "socket"
        if _fits(inside):
            return inside
        name = f"apothic-{os.geteuid()}-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]}"
        runtime = os.environ.get("XDG_RUNTIME_DIR", "") if self.is_same_user else ""
        places = [Path(place) / name for place in (runtime, tempfile.gettempdir(), _SHORT) if place]
        return next(place for place in places if place.parent.is_dir() and _fits(place))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(_SOCKET_NAME) <= SOCKET_PATH_MAX
