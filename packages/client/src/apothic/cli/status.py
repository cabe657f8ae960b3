"""`apothic status`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from apothic.cli.console import print_fields, print_text
from apothic.cli.failures import Stopped
from apothic.cli.settings import Settings, common_options
from apothic.errors import PermissionDeniedError
from apothic.wire.version import VERSION

if TYPE_CHECKING:
    from apothic._answers import Identity, Readiness, WorkerInfo
    from apothic.client import ControlPlaneClient

NOT_READY = 9


@click.command()
@common_options
@click.pass_obj
def status(settings: Settings) -> None:
    """Show the cloud, your identity and the workers with what they isolate and limit.

    Ends with 9 when the cloud answers but is not ready.
    """
    client = settings.client()
    readiness = client.readiness()
    identity = client.identity()
    workers = _workers(client)
    if settings.is_for_programs:
        settings.print_document(_document(client.base_url, readiness, identity, workers))
    else:
        _print(client.base_url, readiness, identity, workers)
    if not readiness.ready:
        raise Stopped(NOT_READY)


def _workers(client: ControlPlaneClient) -> tuple[WorkerInfo, ...] | None:
    """Return the workers, or None when this key may not see them: they belong to who runs the cloud."""
    try:
        return tuple(client.list_workers())
    except PermissionDeniedError:
        return None


def _document(
    base_url: str, readiness: Readiness, identity: Identity, workers: tuple[WorkerInfo, ...] | None
) -> dict[str, Any]:
    return {
        "base_url": base_url,
        "client_version": VERSION,
        "server_version": identity.server_version,
        **asdict(readiness),
        "identity": asdict(identity),
        "workers": None if workers is None else [asdict(worker) for worker in workers],
    }


def _print(base_url: str, readiness: Readiness, identity: Identity, workers: tuple[WorkerInfo, ...] | None) -> None:
    key = identity.key
    print_fields(
        {
            "cloud": f"{base_url}, version {identity.server_version}",
            "state": f"{'ready' if readiness.ready else 'not ready'}, {readiness.role}",
            "identity": f"{identity.role} of {identity.org}, key {key.prefix}…{key.last4} ({key.name})",
            "client": VERSION,
            "workers": "not shown to this key" if workers is None else str(len(workers)),
        }
    )
    for name, check in readiness.checks.items():
        if not check.ok:
            print_text(f"\n{name} is not ready: {check.detail}")
    for worker in workers or ():
        _print_worker(worker)


def _print_worker(worker: WorkerInfo) -> None:
    machine = worker.machine
    isolation = ", ".join(machine.isolation) or "none"
    print_text(f"\n{worker.name} on {machine.host} is {worker.status}")
    print_fields(
        {
            "  offers": f"{machine.cpus:g} processors, {machine.memory_mb} MiB, Python {', '.join(machine.pythons)}",
            "  runners": str(worker.runners),
            "  executor": f"{machine.executor}; isolated: {isolation}",
            "  enforced": ", ".join(machine.enforced) or "no limits",
            **{f"  not enforced: {name}": reason for name, reason in sorted(machine.not_enforced.items())},
        }
    )
