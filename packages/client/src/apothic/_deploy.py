"""Deploy of an app, without I/O: pack its files, upload what the server lacks, make a new live version."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apothic import _operations
from apothic._answers import DeploymentInfo
from apothic._results import note_main_module
from apothic._steps import Say, Steps, work
from apothic.errors import ConflictError, InvalidRequestError, NotFoundError, PermissionDeniedError
from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.images import ImageSpec
from apothic.wire.limits import FUNCTIONS_PER_APP_MAX, MANIFEST_FILES_MAX
from apothic.wire.version import VERSION

if TYPE_CHECKING:
    from apothic._archive import Packed, PackedFile
    from apothic._archive_parts import Upload
    from apothic._core import Core
    from apothic._difference import Difference
    from apothic._packages import Packages
    from apothic._placed_files import AddedFiles

_NAMES_SHOWN = 3
PARTS_FROM_BYTES = 64 * 1024
"""From this size on it is worth asking for the live version first, to send only what changed."""


@dataclass(frozen=True)
class AppFile:
    """Where an app is defined.

    Attributes:
        path: The file.
        module: Name under which it is imported here; `__main__` for a script.
        variable: Attribute of the module that holds the app.
    """

    path: Path
    module: str
    variable: str


@dataclass(frozen=True)
class Deployed:
    """What a deploy did.

    Attributes:
        deployment: The new live version.
        packed: The archive.
        uploaded_bytes: Bytes of the archive that were sent; 0 when the server had it already.
        is_new: A version was made; False when the live one has this content already.
        packages: What functions without an image have of what the files import; empty when each has one.
        difference: From the version that was live before, if it was asked for; None without such a version.
    """

    deployment: DeploymentInfo
    packed: Packed
    uploaded_bytes: int
    is_new: bool
    packages: Packages
    difference: Difference | None = None

    @property
    def was_present(self) -> bool:
        """Whether the server had the archive already, so that nothing was uploaded."""
        return not self.uploaded_bytes


def deploy(
    core: Core,
    name: str,
    source: AppFile,
    functions: Sequence[FunctionSpec],
    added: Mapping[str, AddedFiles],
    *,
    is_quiet: bool,
    compares: bool = False,
    if_changed: bool = True,
) -> Steps[Deployed]:
    """Deploy an app; says on standard error what it uploads unless `is_quiet`.

    Args:
        added: What the images of functions add, by the function's name.
        compares: Look up the live version first and say what changes.
        if_changed: Make no version when the live one has the same content.

    Raises:
        InvalidRequestError: The app or its files cannot be deployed; nothing was uploaded.
        TooLargeError: The archive exceeds its limits.
        ApothicError: The server refused.
    """
    from apothic._archive import pack

    packed = yield from work(lambda: pack(source.path, added=added))
    if source.module == "__main__":
        note_main_module(str(getattr(sys.modules["__main__"], "__file__", source.path)), packed.module)
    functions, packages = yield from work(lambda: completed(functions, packed))
    manifest = manifest_of(packed.module, source.variable, functions, packed.files)
    live = (yield from live_version(core, name)) if compares else None
    uploaded = yield from _upload(core, name, packed, packages, live, is_quiet=is_quiet)
    try:
        deployment, is_new = yield from _operations.create_deployment(core, name, manifest, packed.sha256, if_changed)
    except ConflictError as error:
        if error.code != "archive_missing":
            raise
        yield from _operations.put_archive(core, packed.data, packed.sha256)
        uploaded = packed.size_bytes
        deployment, is_new = yield from _operations.create_deployment(core, name, manifest, packed.sha256, if_changed)
    return Deployed(deployment, packed, uploaded, is_new, packages, _difference(live, manifest))


def difference_to_live(core: Core, name: str, manifest: Manifest) -> Steps[Difference | None]:
    """Return what a deploy of `manifest` would change; None when no version is live or the key may not read it."""
    return _difference((yield from live_version(core, name)), manifest)


def live_version(core: Core, name: str) -> Steps[DeploymentInfo | None]:
    """Return what is live; None when nothing is, or the key may not read it."""
    try:
        live = (yield from _operations.get_app(core, name)).deployment_id
        return None if live is None else (yield from _operations.get_deployment(core, live))
    except (NotFoundError, PermissionDeniedError):
        return None


def _difference(live: DeploymentInfo | None, manifest: Manifest) -> Difference | None:
    from apothic._difference import difference

    if live is None or not live.manifest:
        return None
    return difference(live.manifest, json.loads(json.dumps(asdict(manifest))))


def completed(functions: Sequence[FunctionSpec], packed: Packed) -> tuple[list[FunctionSpec], Packages]:
    """Return functions with what their images have only by a deploy: the places of added files and, without an image,
    the packages that the app's files import; and these packages."""
    from apothic._packages import Packages, packages_of

    has_all = all(function.image is not None for function in functions)
    packages = Packages() if has_all else packages_of(packed.imports)
    imported = ImageSpec(_python_here(), packages.requirements) if packages.requirements else None
    return [_completed(function, imported, packed.mounts.get(function.name, {})) for function in functions], packages


def _completed(function: FunctionSpec, imported: ImageSpec | None, mounts: dict[str, str]) -> FunctionSpec:
    image = function.image
    return replace(function, image=imported if image is None else replace(image, mounts=mounts))


def manifest_of(
    module: str, variable: str, functions: Sequence[FunctionSpec], files: Sequence[PackedFile] = ()
) -> Manifest:
    """Return what a deployment is besides the content of its files.

    Raises:
        InvalidRequestError: There is no function, or there are too many.
    """
    if not functions:
        raise InvalidRequestError(
            "The app has no functions, so there is nothing to deploy; decorate one with @app.function().",
            code="empty_app",
        )
    if len(functions) > FUNCTIONS_PER_APP_MAX:
        raise InvalidRequestError(
            f"The app has {len(functions):,} functions; at most {FUNCTIONS_PER_APP_MAX:,} can be."
        )
    told = sorted(files, key=lambda file: file.path) if len(files) <= MANIFEST_FILES_MAX else []
    digests, sizes = {file.path: file.sha256 for file in told}, tuple(file.size_bytes for file in told)
    return Manifest(module, variable, _python_here(), VERSION, tuple(functions), digests, sizes)


def _python_here() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_app_file(app: object, module_name: str) -> AppFile:
    """Return the file that defines `app`.

    Raises:
        InvalidRequestError: The app was made in a notebook, a prompt or a function, where no runner can import it.
    """
    module = sys.modules.get(module_name)
    file: Any = getattr(module, "__file__", None)
    if module is None or not isinstance(file, str) or not Path(file).is_file():
        raise InvalidRequestError(
            "The app is not defined in a file, so it cannot be uploaded; save it to a .py file and deploy that.",
            code="no_app_file",
        )
    for variable, value in vars(module).items():
        if value is app:
            return AppFile(Path(file).resolve(), module_name, variable)
    raise InvalidRequestError(
        f"No variable of {Path(file).name} holds the app, so runners cannot find it; assign it at the top of the file.",
        code="app_not_found",
    )


def says_uploads() -> bool:
    """Whether deploys say on standard error what they upload."""
    return os.environ.get("APOTHIC_QUIET", "") in {"", "0"}


def _upload(
    core: Core, name: str, packed: Packed, packages: Packages, live: DeploymentInfo | None, *, is_quiet: bool
) -> Steps[int]:
    """Give the server the archive, of which it gets only what it does not have; return how many bytes were sent."""
    from apothic._archive_parts import upload_parts

    is_present = yield from _operations.has_archive(core, packed.sha256)
    if not is_present and live is None and packed.size_bytes > PARTS_FROM_BYTES:
        live = yield from live_version(core, name)
    parts = None
    if not is_present and live is not None:
        parts = upload_parts(packed, live.archive_sha256, live.manifest)
    if not is_quiet:
        yield Say(_summary(packed.files, is_present=is_present, parts=parts))
        if packages.requirements:
            yield Say(f"installs {', '.join(packages.requirements)}")
        for note in (*packed.notes, *packages.notes):
            yield Say(f"note: {note}")
    if is_present:
        return 0
    if parts is not None and (yield from _operations.put_archive_parts(core, parts.body, packed.sha256)):
        return parts.new_bytes
    yield from _operations.put_archive(core, packed.data, packed.sha256)
    return packed.size_bytes


def _summary(files: Sequence[PackedFile], *, is_present: bool, parts: Upload | None) -> str:
    """Return for example `uploads 1 file, 412 bytes: hello_world.py`."""
    count = "1 file" if len(files) == 1 else f"{len(files):,} files"
    size = sum(file.size_bytes for file in files)
    names = ", ".join(file.path for file in files[:_NAMES_SHOWN])
    more = f" and {len(files) - _NAMES_SHOWN:,} more" if len(files) > _NAMES_SHOWN else ""
    verb = "uploads nothing, the server has" if is_present else "uploads"
    if parts is not None:
        verb = f"uploads {parts.new_bytes:,} bytes of"
    return f"{verb} {count}, {size:,} bytes: {names}{more}"
