"""What the server says about workers. Apart from the other answers, because only operators pay for its import."""

from __future__ import annotations

from dataclasses import dataclass

from apothic.wire.link import Machine


@dataclass(frozen=True)
class WorkerInfo:
    """One worker; `status` is `live`, `impaired`, `lost` or `ended`, `runners` counts the live ones."""

    worker_id: str
    name: str
    status: str
    connected_at: str
    machine: Machine
    runners: int
