"""What placement asks of a machine, and what of that a machine does not offer.

Machines tell their processors and their memory. Whatever else is asked for counts as not offered, except that `neq` and
`notin` let pass what is not told. A machine that joined costs nothing by the hour, so no highest price is too low.
Placement is kept as it was deployed: of whatever form a condition is, nothing here fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from apothic.wire.link import Machine

_PRICES = frozenset({"max_cost_per_hour_usd", "max_cost_per_tflop_hour_usd"})
_NAMED = {"min_cpu_cores": ("cpu_cores", 1), "min_cpu_ram_gb": ("cpu_ram", 1024)}
"""Named fields to the field of a machine and what one of their units is there."""

_SHOWN_MAX = 80


def unmet_wishes(placement: Mapping[str, Any], machine: Machine) -> list[str]:
    """Return what a machine does not offer, each as it was asked for; nothing when the machine will do."""
    offered = {"cpu_cores": machine.cpus, "cpu_cores_effective": machine.cpus, "cpu_ram": machine.memory_mb}
    unmet: list[str] = []
    for name, value in placement.items():
        if name in _PRICES or value is False:
            continue
        if name == "offer_filters":
            unmet += _unmet_filters(value, offered)
        elif name in _NAMED:
            field, unit = _NAMED[name]
            if not _is_at_least(offered[field], value, unit):
                unmet.append(_shown(name, "=", value))
        else:
            unmet.append(_shown(name, "=", value))
    return unmet


def _unmet_filters(filters: Any, offered: Mapping[str, float]) -> Iterator[str]:
    for field, conditions in _items(filters):
        for operator, value in _items(conditions):
            if not _holds(operator, offered.get(field), value):
                yield _shown(field, f" {operator} ", value)


def _holds(operator: str, offered: float | None, value: Any) -> bool:
    if offered is None:
        return operator in ("neq", "notin")
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    if operator in ("eq", "in"):
        return offered in values
    if operator in ("neq", "notin"):
        return offered not in values
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    match operator:
        case "gt":
            return offered > value
        case "gte":
            return offered >= value
        case "lt":
            return offered < value
        case "lte":
            return offered <= value
        case _:
            return False


def _is_at_least(offered: float, value: Any, unit: int) -> bool:
    return isinstance(value, (int, float)) and offered >= value * unit


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(cast("dict[str, Any]", value).items()) if isinstance(value, dict) else []


def _shown(name: str, between: str, value: Any) -> str:
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    text = " or ".join(one if isinstance(one, str) else json.dumps(one) for one in values)
    found = f"{name}{between}{text}"
    return found if len(found) <= _SHOWN_MAX else f"{found[: _SHOWN_MAX - 1]}…"
