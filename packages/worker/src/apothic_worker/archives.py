"""Unpacked archives on this machine: fetched once per (org, digest), never shared between orgs."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import re
import ssl
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from apothic.wire.limits import ARCHIVE_PACKED_MAX
from apothic_worker.archive import ArchiveRefused, unpack
from apothic_worker.config import ConfigError
from apothic_worker.folders import make_read_only, remove, sync_tree

ARCHIVES_KEPT = 64
"""Unpacked archives kept beside those in use; the ones used longest ago go first."""

REQUEST_TIMEOUT_S = 20.0
_CHUNK = 1024 * 1024
_PLAIN = re.compile(r"[0-9a-z]{1,64}")


class ArchiveGone(Exception):
    """The server no longer has the deployment."""


class FetchFailed(Exception):
    """The archive could not be fetched now; another try may help."""


Fetch = Callable[[str, BinaryIO], str]
"""Writes the archive of a deployment into a file and returns its SHA-256 in hex; blocks."""


class Archives:
    """The cache below one folder.

    Args:
        root: Folder of ours; holds `<org>/<digest>/`.
        scratch: Folder on the same file system for what is not whole yet.
        fetch: How archives come here.
    """

    def __init__(self, root: Path, scratch: Path, fetch: Fetch) -> None:
        self._root = root
        self._scratch = scratch
        self._fetch = fetch
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def get(self, org: str, deployment: str, digest: str) -> Path:
        """Return the read-only folder with the archive's files, fetching and unpacking it when it is not here.

        Raises:
            ArchiveGone: The deployment does not exist any more.
            ArchiveRefused: The archive is not one that we unpack.
            FetchFailed: Anything else went wrong on the way.
        """
        if not (_PLAIN.fullmatch(org) and _PLAIN.fullmatch(deployment) and _PLAIN.fullmatch(digest)):
            raise ArchiveRefused("the archive's name is not plain")
        folder = self._root / org / digest
        async with self._locks.setdefault((org, digest), asyncio.Lock()):
            if not folder.is_dir():
                await asyncio.to_thread(self._bring, deployment, digest, folder)
        return folder

    def prune(self, in_use: Iterable[Path]) -> None:
        """Remove the folders used longest ago beyond `ARCHIVES_KEPT`, never one of `in_use`."""
        kept = set(in_use)
        idle = sorted(
            (path for path in self._root.glob("*/*") if path not in kept), key=lambda path: path.stat().st_atime
        )
        for path in idle[: max(0, len(idle) - ARCHIVES_KEPT)]:
            remove(path)

    def _bring(self, deployment: str, digest: str, folder: Path) -> None:
        with tempfile.TemporaryFile(dir=self._scratch) as packed:
            found = self._fetch(deployment, packed)
            if found != digest:
                raise FetchFailed(f"the archive of deployment {deployment} has the digest {found} instead of {digest}")
            packed.seek(0)
            self._unpack(packed, folder)

    def _unpack(self, packed: BinaryIO, folder: Path) -> None:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix="archive-", dir=self._scratch))
        try:
            unpack(packed, half)
            make_read_only(half)
            half.chmod(0o755)
            # Its name says that it is whole: after a power cut a folder of empty files would fail every call.
            sync_tree(half)
            half.rename(folder)
            folder.chmod(0o555)
        except BaseException:
            remove(half)
            raise


def http_fetch(where: Callable[[], tuple[str, str]]) -> Fetch:
    """Return a `Fetch` from `GET {url}/v1/link/archives/{deployment}` with the worker's token.

    Args:
        where: Returns address and token; asked before each fetch.
    """

    def fetch(deployment: str, out: BinaryIO) -> str:
        try:
            url, token = where()
        except ConfigError as error:
            raise FetchFailed(str(error)) from error
        parts = urllib.parse.urlsplit(url)
        connection = connect(parts)
        try:
            path = f"{parts.path.rstrip('/')}/v1/link/archives/{deployment}"
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            return _store(connection.getresponse(), deployment, out)
        except (OSError, http.client.HTTPException) as error:
            raise FetchFailed(f"the archive of deployment {deployment} could not be fetched: {error!r}") from error
        finally:
            connection.close()

    return fetch


def connect(parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
    """Return a connection to the control plane at an address, not opened yet."""
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=REQUEST_TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, parts.port, timeout=REQUEST_TIMEOUT_S)


def _store(response: http.client.HTTPResponse, deployment: str, out: BinaryIO) -> str:
    if response.status == 404:
        raise ArchiveGone(f"deployment {deployment} does not exist any more")
    if response.status != 200:
        raise FetchFailed(f"the server answered {response.status} for the archive of deployment {deployment}")
    digest = hashlib.sha256()
    size = 0
    while chunk := response.read(_CHUNK):
        size += len(chunk)
        if size > ARCHIVE_PACKED_MAX:
            raise ArchiveRefused(f"the archive is larger than {ARCHIVE_PACKED_MAX} bytes")
        digest.update(chunk)
        out.write(chunk)
    return digest.hexdigest()
