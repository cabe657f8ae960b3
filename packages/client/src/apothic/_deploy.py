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
    from apothic._core import Core
    from apothic._difference import Difference
    from apothic._packages import Packages
    from apothic._placed_files import AddedFiles

_NAMES_SHOWN = 3


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
        was_present: The server had the archive already, so nothing was uploaded.
        is_new: A version was made; False when the live one has this content already.
        packages: What functions without an image have of what the files import; empty when each has one.
        difference: From the version that was live before, if it was asked for; None without such a version.
    """

    deployment: DeploymentInfo
    packed: Packed
    was_present: bool
    is_new: bool
    packages: Packages
    difference: Difference | None = None


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
    difference = (yield from difference_to_live(core, name, manifest)) if compares else None
    was_present = yield from _upload(core, packed, packages, is_quiet=is_quiet)
    try:
        deployment, is_new = yield from _operations.create_deployment(core, name, manifest, packed.sha256, if_changed)
    except ConflictError as error:
        if error.code != "archive_missing":
            raise
        yield from _operations.put_archive(core, packed.data, packed.sha256)
        deployment, is_new = yield from _operations.create_deployment(core, name, manifest, packed.sha256, if_changed)
    return Deployed(deployment, packed, was_present, is_new, packages, difference)


def difference_to_live(core: Core, name: str, manifest: Manifest) -> Steps[Difference | None]:
    """Return what a deploy of `manifest` would change; None when no version is live or the key may not read it."""
    from apothic._difference import difference

    try:
        live = (yield from _operations.get_app(core, name)).deployment_id
        if live is None:
            return None
        before = (yield from _operations.get_deployment(core, live)).manifest
    except (NotFoundError, PermissionDeniedError):
        return None
    return difference(before, json.loads(json.dumps(asdict(manifest)))) if before else None


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
    digests = {file.path: file.sha256 for file in files} if len(files) <= MANIFEST_FILES_MAX else {}
    return Manifest(module, variable, _python_here(), VERSION, tuple(functions), digests)


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


def _upload(core: Core, packed: Packed, packages: Packages, *, is_quiet: bool) -> Steps[bool]:
    is_present = yield from _operations.has_archive(core, packed.sha256)
    if not is_quiet:
        yield Say(_summary(packed.files, is_present=is_present))
        if packages.requirements:
            yield Say(f"installs {', '.join(packages.requirements)}")
        for note in (*packed.notes, *packages.notes):
            yield Say(f"note: {note}")
    if not is_present:
        yield from _operations.put_archive(core, packed.data, packed.sha256)
    return is_present


def _summary(files: Sequence[PackedFile], *, is_present: bool) -> str:
    """Return for example `uploads 1 file, 412 bytes: hello_world.py`."""
    count = "1 file" if len(files) == 1 else f"{len(files):,} files"
    size = sum(file.size_bytes for file in files)
    names = ", ".join(file.path for file in files[:_NAMES_SHOWN])
    more = f" and {len(files) - _NAMES_SHOWN:,} more" if len(files) > _NAMES_SHOWN else ""
    verb = "uploads nothing, the server has" if is_present else "uploads"
    return f"{verb} {count}, {size:,} bytes: {names}{more}"
