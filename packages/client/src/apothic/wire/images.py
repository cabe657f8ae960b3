"""What an image says, shared by SDK, server and worker: the packages, variables and files beside user code.

A worker makes an environment of it: an interpreter that is present there and the packages, which come as wheels from
the worker's package index. Requirements name distributions only. Addresses, folders and options are refused: nobody but
the operator of a worker says what it fetches from where, and nothing of a package runs while it is installed.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field

from apothic.wire.values import RemoteError

REQUIREMENTS_MAX = 2_000
REQUIREMENT_LENGTH_MAX = 8_192
"""Long enough for a requirement with a hash for each of its wheels."""

VARIABLES_MAX = 512
VARIABLE_BYTES_MAX = 32 * 1024
WORKDIR_LENGTH_MAX = 1_024
WORKDIR_ROOTS = ("app", "data", "home", "mnt", "opt", "srv", "tmp", "work", "workspace")
WORKDIR_RULE = "a folder of the app's files, or one below /" + ", /".join(WORKDIR_ROOTS) + "; without .."
RECORDED_MAX = 256
RECORDED_LENGTH_MAX = 4_096
MOUNTS_MAX = 256
BUILD_LINES_MAX = 1_000
"""Lines of a build's log that are kept; a line is cut at `BUILD_LINE_MAX` characters."""

BUILD_LINE_MAX = 2_000
BUILD_FAILURE_KEPT_S = 60.0
"""A build that failed is tried again by the same deployment after so long, and at once by a new one."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXTRAS = r"(?:\[ *(?:" + _NAME + r"(?: *, *" + _NAME + r")*)? *\])?"
_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>) *[A-Za-z0-9.*+!_-]+"
_VERSIONS = r"(?:\(? *" + _VERSION + r"(?: *, *" + _VERSION + r")* *,? *\)?)?"
_MARKER = r"(?: *; *[\w .,'\"<>=!~()+*-]+?)?"
_HASHES = r"(?: +--hash=sha(?:256|384|512):[0-9a-f]{64,128})*"
_REQUIREMENT = re.compile(f"{_NAME} *{_EXTRAS} *{_VERSIONS}{_MARKER}{_HASHES}", re.ASCII)
_ARCHIVE = re.compile(r"[A-Za-z0-9._-]*\.(?:whl|zip|tar|t?gz|t?bz2?|t?xz|tlz|lzma|lz|zst|egg)(?![A-Za-z0-9._-])", re.I)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PYTHON = re.compile(r"3\.[0-9]{1,2}")


@dataclass(frozen=True)
class ImageSpec:
    """One image.

    Attributes:
        python: `major.minor` of its interpreter.
        requirements: What is installed, all resolved together; see `is_requirement`.
        variables: Environment variables of user code.
        workdir: Folder in which calls begin; empty for that of the app's files.
        recorded: Steps that only an image builder can do, in words. Jobs wait while there are any.
        mounts: Paths in the archive, of files and folders that user code finds elsewhere too, by the absolute path
            there; see `is_mount_place`. None lies below another.
    """

    python: str
    requirements: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]
    workdir: str = ""
    recorded: tuple[str, ...] = ()
    mounts: dict[str, str] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]


@dataclass(frozen=True)
class PrepareImage:
    """Make the environment of an image ready before runners need it; `Prepared` is the answer, also to a repetition.

    Attributes:
        org: Isolation boundary; nothing is shared between orgs.
        environment: Its `environment_id`.
    """

    org: str
    deployment: str
    environment: str
    image: ImageSpec


@dataclass(frozen=True)
class BuildLines:
    """Lines of the log of a build, in order.

    Attributes:
        environment: As `PrepareImage.environment`.
        first: Number of the first line; the first of a build has 0. After a new link they are sent again.
    """

    deployment: str
    environment: str
    first: int
    lines: list[str]


@dataclass(frozen=True)
class Prepared:
    """What a `PrepareImage` asked for is done: runners may be started, and learn it when the build failed.

    Attributes:
        took_ms: Milliseconds that a build took; 0 when the environment was there.
        error: Why it cannot be had.
        is_gone: It was there and has been removed to make room; before another runner needs it, it is asked for again.
    """

    deployment: str
    environment: str
    took_ms: int = 0
    error: RemoteError | None = None
    is_gone: bool = False


ENVIRONMENTS_TOLD_MAX = 10_000


@dataclass(frozen=True)
class TidyImages:
    """Say which environments of an org are here, after the removal of what nobody needs; `ImagesTidied` is the answer.

    Attributes:
        number: Comes back in the answer.
        keep: Environments to keep, besides those in use; None removes nothing.
    """

    number: int
    org: str
    keep: list[str] | None = None


@dataclass(frozen=True)
class HeldImage:
    """One environment on a worker.

    Attributes:
        size_bytes: Of its files; what it shares with others counts in each.
        built_at: Unix seconds.
        used_at: Unix seconds of the last time that somebody asked for it.
        is_in_use: A zygote has it.
        is_removed: It was here and was removed for this answer.
    """

    environment: str
    size_bytes: int
    built_at: float
    used_at: float
    is_in_use: bool = False
    is_removed: bool = False


@dataclass(frozen=True)
class ImagesTidied:
    """What was there when a `TidyImages` came, at most `ENVIRONMENTS_TOLD_MAX`.

    Attributes:
        freed_bytes: By how much the disk use of environments and of uv's cache went down.
    """

    number: int
    items: list[HeldImage]
    freed_bytes: int = 0


def is_requirement(text: str) -> bool:
    """Whether `text` names a distribution: a name, extras, versions, a marker, hashes, and nothing else."""
    if len(text) > REQUIREMENT_LENGTH_MAX or _REQUIREMENT.fullmatch(text) is None:
        return False
    return _ARCHIVE.match(text) is None  # the name of a file, which uv would look for


def is_variable(name: str) -> bool:
    """Whether user code may be given a variable of this name; ours begin with `APOTHIC_`."""
    return len(name) <= 256 and _VARIABLE.fullmatch(name) is not None and not name.startswith("APOTHIC_")


def is_python(version: str) -> bool:
    """Whether `version` is a `major.minor` of Python 3."""
    return _PYTHON.fullmatch(version) is not None


ImageProblem = tuple[tuple["str | int", ...], str, str]
"""Where in the image, what is wrong in words, and the kind of mistake."""


def image_problems(image: ImageSpec) -> list[ImageProblem]:
    """Return all that is wrong with an image; nothing when it can be used."""
    found: list[ImageProblem] = []
    if not is_python(image.python):
        found.append((("python",), "must be a version like 3.11", "pattern"))
    for name, most, entries in (
        ("requirements", REQUIREMENTS_MAX, image.requirements),
        ("variables", VARIABLES_MAX, image.variables),
        ("recorded", RECORDED_MAX, image.recorded),
        ("mounts", MOUNTS_MAX, image.mounts),
    ):
        if len(entries) > most:
            found.append(((name,), f"must hold at most {most} entries", "too_long"))
    wrong = (place for place, text in enumerate(image.requirements) if not is_requirement(text))
    found += [(("requirements", place), "must name a distribution, such as numpy>=2", "pattern") for place in wrong]
    names = (name for name in image.variables if not is_variable(name))
    found += [(("variables", name[:256]), "is no name of a variable, or one of ours", "pattern") for name in names]
    if sum(len(name) + len(value) for name, value in image.variables.items()) > VARIABLE_BYTES_MAX:
        found.append((("variables",), f"exceed {VARIABLE_BYTES_MAX} characters", "too_long"))
    if any("\0" in value for value in image.variables.values()):
        found.append((("variables",), "must not hold NUL", "pattern"))
    if not is_workdir(image.workdir):
        found.append((("workdir",), f"must be {WORKDIR_RULE}", "pattern"))
    if any(not step or len(step) > RECORDED_LENGTH_MAX for step in image.recorded):
        found.append((("recorded",), f"must hold texts of 1 to {RECORDED_LENGTH_MAX} characters", "too_long"))
    for place, path in image.mounts.items():
        if not is_mount_place(place) or any(place.startswith(f"{other}/") for other in image.mounts):
            found.append((("mounts", place[:256]), "must be a place for files of its own", "pattern"))
        if not _is_plain(path):
            found.append((("mounts", place[:256]), "must be a path in the archive", "pattern"))
    return found


def is_workdir(path: str) -> bool:
    """Whether calls may begin in this folder; see `WORKDIR_RULE`."""
    parts = path.split("/")
    if len(path) > WORKDIR_LENGTH_MAX or "\0" in path or ".." in parts:
        return False
    return not path.startswith("/") or (len(parts) > 1 and parts[1] in WORKDIR_ROOTS)


def is_mount_place(path: str) -> bool:
    """Whether files of the archive may be shown at this absolute path: below the folders of `WORKDIR_RULE`, not in that
    of the app's files, where the archive is shown, and not in place of the temporary folder."""
    parts = path.split("/")[1:]
    return path.startswith("/") and is_workdir(path) and _is_plain(path[1:]) and parts != ["tmp"] and parts[0] != "app"


def _is_plain(path: str) -> bool:
    return 0 < len(path) <= WORKDIR_LENGTH_MAX and "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def image_id(image: ImageSpec | None) -> str:
    """Return the hash of all that an image says, 32 hexadecimal digits; empty without one."""
    return "" if image is None else _digest(asdict(image))


def environment_id(image: ImageSpec | None) -> str:
    """Return the hash of what is installed, 32 hexadecimal digits; empty when nothing is."""
    if image is None or not image.requirements:
        return ""
    return _digest({"python": image.python, "requirements": sorted(set(image.requirements))})


def _digest(value: object) -> str:
    import hashlib  # here, for it loads a library that nothing else in most zygotes needs

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
