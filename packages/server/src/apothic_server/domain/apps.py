"""Apps, deployments and functions as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.ids import AppId, DeploymentId, FunctionId, KeyId, OrgId
from apothic_server.domain.errors import Invalid


@dataclass(frozen=True, slots=True)
class App:
    """A named group of functions; `active` is None while the app is stopped."""

    id: AppId
    org: OrgId
    name: str
    active: DeploymentId | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """One immutable version of an app.

    Attributes:
        version: 1, 2, 3 … within the app.
        status: `active`, `superseded`, `stopped` or `deleted`.
        archive: SHA-256 of the uploaded files, in hex.
        functions: Function ids by name.
        restored_from: Version that a rollback took the content from; None when it was uploaded for this version.
    """

    id: DeploymentId
    org: OrgId
    app: AppId
    app_name: str
    version: int
    status: str
    archive: str
    manifest: Manifest
    functions: dict[str, FunctionId]
    created_by: KeyId
    created_at: datetime
    stopped_at: datetime | None
    deleted_at: datetime | None
    restored_from: int | None = None

    @property
    def content_version(self) -> int:
        """Version that was the first with this content, as far as rollbacks are concerned."""
        return self.version if self.restored_from is None else self.restored_from


@dataclass(frozen=True, slots=True)
class Switch:
    """The active deployment after a deploy or a rollback.

    Attributes:
        is_new: It was made; False when the app ran this content already, so nothing changed.
        superseded: The one that was active before.
    """

    deployment: Deployment
    is_new: bool
    superseded: DeploymentId | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """A function as its app's active deployment has it. The id stays the same over deployments.

    Attributes:
        archive, module, app_variable, python: Those of the deployment's archive and manifest.
    """

    id: FunctionId
    org: OrgId
    app: AppId
    app_name: str
    deployment: DeploymentId
    archive: str
    module: str
    app_variable: str
    python: str
    spec: FunctionSpec


def check_python(function: Function, made_by: str | None) -> None:
    """Refuse arguments that only another Python than the function's can read.

    Args:
        made_by: Minor version that the arguments need; None when any will do.

    Raises:
        Invalid: They do not fit (`python_mismatch`).
    """
    if made_by not in (None, python_of(function)):
        detail = (
            f"the arguments hold functions or classes by value, made by Python {made_by}; {function.spec.name} runs "
            f"Python {python_of(function)}. Use the same minor version on both sides, or define them in a module of "
            "the app"
        )
        raise Invalid(detail, code="python_mismatch")


def python_of(function: Function) -> str:
    """Return the `major.minor` that a function runs under: its image's, else that of the deploying interpreter."""
    return python_under(function.python, function.spec)


def python_under(deployed_from: str, spec: FunctionSpec) -> str:
    """Return what `python_of` does, of a function in a manifest."""
    return deployed_from if spec.image is None else spec.image.python
