"""Where a function may run: the named placement fields and `offer_filters`, checked when the decorator runs.

Both are kept as given; a function with placement runs only on machines that meet all of it, and waits otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from apothic._ranges import flag, number, texts, whole, wrong
from apothic.errors import InvalidRequestError
from apothic.wire.limits import FUNCTION_SPEC_MAX

OPERATORS = ("eq", "neq", "gt", "lt", "gte", "lte", "in", "notin")
"""Comparisons of `offer_filters`; several on one field must all hold."""

_ALSO_WRITTEN = {
    "=": "eq", "==": "eq", "!=": "neq", "<>": "neq", "ne": "neq", ">": "gt", ">=": "gte", "ge": "gte", "<": "lt",
    "<=": "lte", "le": "lte", "not in": "notin", "not_in": "notin", "nin": "notin",
}  # fmt: skip
"""How others write the operators, to ask whether one of these was meant."""

FIELDS = frozenset({
    "bw_nvlink", "compute_cap", "cpu_arch", "cpu_cores", "cpu_cores_effective", "cpu_ghz", "cpu_ram",
    "cuda_max_good", "datacenter", "direct_port_count", "disk_bw", "disk_space", "dlperf", "dlperf_per_dphtotal",
    "dph_total", "driver_version", "duration", "external", "flops_per_dphtotal", "geolocation", "gpu_arch",
    "gpu_frac", "gpu_max_power", "gpu_max_temp", "gpu_mem_bw", "gpu_name", "gpu_ram", "gpu_total_ram", "has_avx",
    "inet_down", "inet_down_cost", "inet_up", "inet_up_cost", "machine_id", "num_gpus", "os_version", "pci_gen",
    "pcie_bw", "reliability", "rentable", "rented", "static_ip", "storage_cost", "total_flops", "verified",
})  # fmt: skip
"""Fields that offers are known to have. Others are let through, unless they look like one of these written wrongly."""

_ALIKE, _LIKELY = 0.85, 0.6
"""How much two names have in common when one was meant, of fields and of operators."""

_LISTS = frozenset({"in", "notin"})
_ORDERED = frozenset({"gt", "lt", "gte", "lte"})
_TOP = 1e15


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The placement options of a decorator, as given; None means that it does not matter.

    Attributes:
        gpu: One GPU name or several, any of which will do, for example `RTX_4070`.
        gpu_count: GPUs, 1 to 1,024.
        min_vram_gb: Memory of each GPU in GB.
        geolocation: Country code or several, for example `US`.
        offer_filters: Field to operator to value.
        max_cost_per_hour_usd: Highest price of the machine.
        disk_gb: Room on the machine's disk.
        secure_cloud_only: Only machines in certified data centres.
    """

    gpu: str | list[str] | None = None
    gpu_count: int | None = None
    min_vram_gb: int | None = None
    geolocation: str | list[str] | None = None
    offer_filters: Mapping[str, Mapping[str, Any]] | None = None
    max_cost_per_hour_usd: float | None = None
    max_cost_per_tflop_hour_usd: float | None = None
    min_total_flops: float | None = None
    min_gpu_ram_bandwidth_gbps: float | None = None
    min_cpu_cores: float | None = None
    min_cpu_ram_gb: float | None = None
    min_cpu_ghz: float | None = None
    min_disk_bandwidth_mb_s: float | None = None
    min_internet_upload_mbps: float | None = None
    min_internet_download_mbps: float | None = None
    secure_cloud_only: bool | None = None
    disk_gb: float | None = None

    def __post_init__(self) -> None:
        given = self._given()
        for name, value in given.items():
            _check(name, value)
        if len(json.dumps(given)) > FUNCTION_SPEC_MAX // 2:
            raise InvalidRequestError("offer_filters: the placement options are too long")

    def as_dict(self) -> dict[str, Any]:
        """Return the options that were given, as they are deployed."""
        given = self._given()
        return cast("dict[str, Any]", json.loads(json.dumps(given)))

    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def _check(name: str, value: Any) -> None:
    if name == "offer_filters":
        _check_filters(value)
    elif name in {"gpu", "geolocation"}:
        texts(name, value)
    elif name == "gpu_count":
        whole(name, value, 1, 1_024)
    elif name == "min_vram_gb":
        whole(name, value, 1, 1_000_000)
    elif name == "secure_cloud_only":
        flag(name, value)
    else:
        number(name, value, 0, _TOP)


def _check_filters(filters: Any) -> None:
    if not isinstance(filters, dict):
        raise wrong("offer_filters", filters, 'a dict like {"gpu_ram": {"gte": 24000}}')
    for field, conditions in cast("dict[Any, Any]", filters).items():
        if not isinstance(field, str) or not field.isidentifier():
            raise wrong("offer_filters", field, "a field name, a Python identifier")
        if field not in FIELDS and (meant := _nearest(field, FIELDS, _ALIKE)):
            raise wrong("offer_filters", field, f"a field of offers; did you mean {meant!r}?")
        if not isinstance(conditions, dict) or not conditions:
            raise wrong(f"offer_filters[{field!r}]", conditions, 'a dict from operator to value like {"gte": 24000}')
        for operator, value in cast("dict[Any, Any]", conditions).items():
            _check_condition(f"offer_filters[{field!r}]", operator, value)


def _check_condition(place: str, operator: Any, value: Any) -> None:
    if operator not in OPERATORS:
        meant = None
        if isinstance(operator, str):
            written = operator.lower().strip()
            meant = _ALSO_WRITTEN.get(written) or _nearest(written, OPERATORS, _LIKELY)
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise wrong(place, operator, f"one of the operators {', '.join(OPERATORS)}{hint}")
    where = f"{place}[{operator!r}]"
    if operator in _ORDERED:
        number(where, value, -_TOP, _TOP)
    elif operator in _LISTS:
        entries = cast("list[Any]", value) if isinstance(value, list) else []
        if not entries or not all(_is_scalar(entry) for entry in entries):
            raise wrong(where, value, "a list of texts or numbers, not empty")
    elif not _is_scalar(value):
        raise wrong(where, value, "a text, a number, True or False")


def _nearest(written: str, known: Iterable[str], alike: float) -> str | None:
    """Return what was most likely meant, None when nothing is like it."""
    import difflib  # only for what is wrong anyway

    found = difflib.get_close_matches(written.lower(), sorted(known), n=1, cutoff=alike)
    return found[0] if found else None


def _is_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return value == value and abs(value) <= _TOP
    return isinstance(value, (str, bool)) or (isinstance(value, int) and abs(value) <= _TOP)
