"""Reads the body of a deployment: unknown fields, types, then bounds, each problem with its place."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import msgspec

from apothic.wire import limits
from apothic.wire.functions import KINDS, BatchSpec, FunctionSpec, Manifest
from apothic.wire.images import ImageSpec, image_problems
from apothic.wire.names import FUNCTION_NAME_RULE, is_function_name
from apothic.wire.schedules import ScheduleSpec
from apothic_server.api.shared.bodies import (
    as_array,
    as_object,
    check_storable,
    invalid_body,
    parse_json,
    unknown_fields,
)
from apothic_server.domain.errors import Invalid, problem
from apothic_server.domain.schedule_rules import fault_of

MODULE_LENGTH_MAX = 512
VERSION_LENGTH_MAX = 64
PROBLEMS_MAX = 20
"""Problems told at once; the rest would only repeat them."""

_FIELDS = ("manifest", "archive_sha256")
_MANIFEST_FIELDS = tuple(field.name for field in dataclasses.fields(Manifest))
_SPEC_FIELDS = tuple(field.name for field in dataclasses.fields(FunctionSpec))
_IMAGE_FIELDS = tuple(field.name for field in dataclasses.fields(ImageSpec))
_BATCHING_FIELDS = tuple(field.name for field in dataclasses.fields(BatchSpec))
_SCHEDULE_FIELDS = tuple(field.name for field in dataclasses.fields(ScheduleSpec))
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_VERSION = re.compile(r"[0-9A-Za-z.+_-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WHERE = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([A-Za-z_0-9]+)|\[(\d+)\]")

BOUNDS: dict[str, tuple[float, float]] = {
    "cpu": (1, limits.CPU_MAX),
    "memory_mb": (limits.MEMORY_MB_MIN, limits.MEMORY_MB_MAX),
    "timeout_s": (1, limits.TIMEOUT_S_MAX),
    "queue_timeout_s": (1, limits.TIMEOUT_S_MAX),
    "startup_timeout_s": (1, limits.TIMEOUT_S_MAX),
    "deadline_s": (1, limits.TIMEOUT_S_MAX),
    "disconnect_grace_s": (0, limits.DISCONNECT_GRACE_S_MAX),
    "max_retries": (0, limits.RETRIES_MAX),
    "retry_initial_delay_s": (0, limits.TIMEOUT_S_MAX),
    "retry_backoff_coefficient": (1, 10),
    "retry_max_delay_s": (0, limits.TIMEOUT_S_MAX),
    "max_containers": (1, limits.CONTAINERS_MAX),
    "tasks_per_container": (1, limits.TASKS_PER_CONTAINER_MAX),
    "concurrent_requests": (1, limits.TASKS_PER_CONTAINER_MAX),
    "max_pending_tasks": (1, limits.QUEUED_JOBS_PER_ORG_MAX),
}
"""Smallest and largest value of each number of a function."""

BATCHING_BOUNDS = {"max_batch_size": (1, limits.BATCH_SIZE_MAX), "wait_ms": (0, limits.BATCH_WAIT_MS_MAX)}
"""The same of `batching`."""

Problems = list[dict[str, Any]]


def read_deployment(body: bytes) -> tuple[Manifest, str]:
    """Return manifest and archive digest of a `create_deployment` body; a function without `qualname` gets its name.

    Raises:
        Invalid: With a list of what is wrong and where.
    """
    value = parse_json(body)
    check_storable(value, ["body"])
    data = as_object(value)
    if data is None:
        raise invalid_body("must be an object", "wrong_type")
    _refuse(_unknown(data))
    _refuse([problem(["body", name], "is missing", "missing") for name in _FIELDS if name not in data])
    manifest, digest = _convert(data["manifest"]), data["archive_sha256"]
    problems = _digest_problems(digest) + _manifest_problems(manifest)
    for index, spec in enumerate(manifest.functions):
        problems += _spec_problems(spec, ["body", "manifest", "functions", index])
    _refuse(problems)
    specs = tuple(
        spec if spec.qualname else dataclasses.replace(spec, qualname=spec.name) for spec in manifest.functions
    )
    return dataclasses.replace(manifest, functions=specs), digest


def is_sha256(text: object) -> bool:
    """Whether `text` is a SHA-256 in lower-case hexadecimal digits."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def _refuse(problems: Problems) -> None:
    if problems:
        raise Invalid("The deployment is not valid.", problems=problems[:PROBLEMS_MAX])


def _unknown(data: dict[str, Any]) -> Problems:
    problems = unknown_fields(data, _FIELDS, ["body"])
    manifest = as_object(data.get("manifest")) or {}
    problems += unknown_fields(manifest, _MANIFEST_FIELDS, ["body", "manifest"])
    for index, spec in enumerate(as_array(manifest.get("functions")) or ()):
        loc: list[str | int] = ["body", "manifest", "functions", index]
        problems += unknown_fields(as_object(spec) or {}, _SPEC_FIELDS, loc)
        image = as_object((as_object(spec) or {}).get("image")) or {}
        problems += unknown_fields(image, _IMAGE_FIELDS, [*loc, "image"])
        schedule = as_object((as_object(spec) or {}).get("schedule")) or {}
        problems += unknown_fields(schedule, _SCHEDULE_FIELDS, [*loc, "schedule"])
        batching = as_object((as_object(spec) or {}).get("batching")) or {}
        problems += unknown_fields(batching, _BATCHING_FIELDS, [*loc, "batching"])
    return problems


def _convert(data: Any) -> Manifest:
    try:
        return msgspec.convert(data, Manifest)
    except msgspec.ValidationError as error:
        text = str(error)
        where = _WHERE.search(text)
        steps = _STEP.findall(where[1]) if where else []
        loc: list[str | int] = ["body", "manifest", *(int(index) if index else name for name, index in steps)]
        kind = "missing" if "missing required" in text else "wrong_type"
        raise Invalid(
            "The manifest is not valid.", problems=[problem(loc, _WHERE.sub("", text).replace("`", ""), kind)]
        ) from None


def _digest_problems(digest: object) -> Problems:
    if is_sha256(digest):
        return []
    return [problem(["body", "archive_sha256"], "must be 64 lower-case hexadecimal digits", "pattern")]


def _manifest_problems(manifest: Manifest) -> Problems:
    loc: list[str | int] = ["body", "manifest"]
    problems: Problems = []
    if not _is_dotted(manifest.module):
        problems.append(problem([*loc, "module"], "must be a dotted Python name", "pattern"))
    if not is_function_name(manifest.app_variable):
        problems.append(problem([*loc, "app_variable"], f"must be {FUNCTION_NAME_RULE}", "pattern"))
    if not _PYTHON.fullmatch(manifest.python):
        problems.append(problem([*loc, "python"], "must be a version like 3.11", "pattern"))
    if len(manifest.client_version) > VERSION_LENGTH_MAX or not _VERSION.fullmatch(manifest.client_version):
        problems.append(problem([*loc, "client_version"], "must be a version like 0.1.0", "pattern"))
    return problems + _functions_problems(manifest, [*loc, "functions"]) + _files_problems(manifest, [*loc, "files"])


def _files_problems(manifest: Manifest, loc: list[str | int]) -> Problems:
    if len(manifest.files) > limits.MANIFEST_FILES_MAX:
        return [problem(loc, f"must hold at most {limits.MANIFEST_FILES_MAX} files", "too_long")]
    problems = _sizes_problems(manifest, [*loc[:-1], "file_sizes"])
    for path, digest in manifest.files.items():
        if not path or len(path.encode()) > limits.FILE_PATH_MAX:
            problems.append(problem(loc, f"has a path that is not 1 to {limits.FILE_PATH_MAX} bytes long", "too_long"))
        elif not is_sha256(digest):
            problems.append(problem([*loc, path[:128]], "must be 64 lower-case hexadecimal digits", "pattern"))
    return problems


def _sizes_problems(manifest: Manifest, loc: list[str | int]) -> Problems:
    sizes = manifest.file_sizes
    if len(sizes) not in (0, len(manifest.files)):
        kind = "too_short" if len(sizes) < len(manifest.files) else "too_long"
        return [problem(loc, "must hold a size for each of files, or none", kind)]
    largest = limits.ARCHIVE_UNPACKED_MAX
    wrong = [index for index, size in enumerate(sizes) if not 0 <= size <= largest]
    return [problem([*loc, index], f"must be from 0 to {largest}", "out_of_range") for index in wrong]


def _functions_problems(manifest: Manifest, loc: list[str | int]) -> Problems:
    names = [spec.name for spec in manifest.functions]
    if not names:
        return [problem(loc, "must hold at least one function", "too_short")]
    if len(names) > limits.FUNCTIONS_PER_APP_MAX:
        return [problem(loc, f"must hold at most {limits.FUNCTIONS_PER_APP_MAX} functions", "too_long")]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    return [problem(loc, f"holds {name[:128]} more than once", "repeated_name") for name in repeated]


def _spec_problems(spec: FunctionSpec, loc: list[str | int]) -> Problems:
    problems: Problems = []
    if not is_function_name(spec.name):
        problems.append(problem([*loc, "name"], f"must be {FUNCTION_NAME_RULE}", "pattern"))
    if spec.kind not in KINDS:
        problems.append(problem([*loc, "kind"], f"must be {' or '.join(KINDS)}", "unknown_kind"))
    if spec.qualname and not _is_dotted(spec.qualname):
        problems.append(problem([*loc, "qualname"], "must be a dotted Python name", "pattern"))
    for name, (low, high) in BOUNDS.items():
        value = getattr(spec, name)
        if value is not None and not low <= value <= high:
            problems.append(problem([*loc, name], f"must be from {low} to {high}", "out_of_range"))
    if spec.at_most_once and spec.max_retries:
        problems.append(problem([*loc, "max_retries"], "must be 0 with at_most_once", "excluded"))
    problems += _batching_problems(spec, loc)
    problems += _image_problems(spec.image, [*loc, "image"])
    if len(json.dumps(spec.placement)) > limits.FUNCTION_SPEC_MAX:
        problems.append(problem([*loc, "placement"], f"exceeds {limits.FUNCTION_SPEC_MAX} bytes", "too_long"))
    fault = None if spec.schedule is None else fault_of(spec.schedule)
    if fault is not None:
        place = [] if fault.place is None else [fault.place]
        problems.append(problem([*loc, "schedule", fault.field, *place], fault.text, fault.kind))
    return problems


def _batching_problems(spec: FunctionSpec, loc: list[str | int]) -> Problems:
    if spec.batching is None:
        return []
    problems: Problems = []
    for name, (low, high) in BATCHING_BOUNDS.items():
        if not low <= getattr(spec.batching, name) <= high:
            problems.append(problem([*loc, "batching", name], f"must be from {low} to {high}", "out_of_range"))
    for name in ("tasks_per_container", "concurrent_requests"):
        if getattr(spec, name) > 1:
            problems.append(problem([*loc, name], "must be 1 with batching", "excluded"))
    if spec.is_generator:
        problems.append(problem([*loc, "is_generator"], "must be false with batching", "excluded"))
    if spec.schedule is not None:
        problems.append(problem([*loc, "schedule"], "must be null with batching: it passes no arguments", "excluded"))
    return problems


def _image_problems(image: ImageSpec | None, loc: list[str | int]) -> Problems:
    found = () if image is None else image_problems(image)
    return [problem([*loc, *where], msg, kind) for where, msg, kind in found]


def _is_dotted(text: str) -> bool:
    return len(text) <= MODULE_LENGTH_MAX and all(part.isidentifier() for part in text.split("."))
