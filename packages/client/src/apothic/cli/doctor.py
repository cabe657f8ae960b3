"""`apothic doctor`: what must be right on this machine and on the way to the cloud, and how to repair it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from apothic.cli.console import print_text
from apothic.cli.failures import ERROR, Stopped
from apothic.cli.findings import Finding, failed, fine, skipped, warned
from apothic.cli.machine import machine_findings
from apothic.cli.settings import Settings, common_options
from apothic.errors import ApothicError, CloudNotRunning, PermissionDeniedError
from apothic.wire.version import VERSION

if TYPE_CHECKING:
    from apothic._http import Response
    from apothic.client import ControlPlaneClient

SKEW_S_MAX = 60
ANSWER_S_MAX = 5.0


@click.command()
@common_options
@click.pass_obj
def doctor(settings: Settings) -> None:
    """Check this machine and the cloud, and say how to fix what is wrong.

    Ends with 1 when a check failed; warnings do not count.
    """
    findings = all_findings(settings)
    is_ok = all(finding.state != "failed" for finding in findings)
    if settings.is_for_programs:
        settings.print_document({"ok": is_ok, "checks": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    if not is_ok:
        raise Stopped(ERROR)


def all_findings(settings: Settings) -> list[Finding]:
    """Return what every check finds, on this machine and on the way to the cloud."""
    return [*machine_findings(), *_cloud_findings(settings)]


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print_text(f"{finding.state:<8} {finding.name:<{width}}  {finding.detail}")
        if finding.fix:
            print_text(f"{'':<9}{'':<{width}}  fix: {finding.fix}")


def _cloud_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what the way to the cloud shows; each check needs the one before."""
    try:
        client = _client(settings)
    except CloudNotRunning as error:
        yield failed("address", str(error), "`apothic up`, or set APOTHIC_BASE_URL and APOTHIC_API_KEY")
        return
    except ApothicError as error:
        yield failed("address", str(error), "correct what the message names")
        return
    yield fine("address", f"{client.base_url} from {client.endpoint.source}")
    try:
        answer = client.request("GET", "/healthz")
    except ApothicError as error:
        yield failed("reachable", str(error), "start the cloud, or correct the address")
        return
    if answer.status != 200:
        yield failed("reachable", f"/healthz answers with status {answer.status}", "check that this is a cloud")
        return
    yield fine("reachable", f"{client.base_url} answers")
    yield _clock(answer)
    yield from _ready(client)
    yield from _key(client)
    yield _workers(client)


def _client(settings: Settings) -> ControlPlaneClient:
    from apothic.client import ControlPlaneClient

    return ControlPlaneClient(settings.base_url, timeout_s=ANSWER_S_MAX, allow_pickle=False)


def _clock(answer: Response) -> Finding:
    """Compare this machine's clock with the `Date` of an answer."""
    import time
    from email.utils import parsedate_to_datetime

    try:
        there = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return skipped("clock", "the cloud does not tell its time")
    skew_s = round(time.time() - there)
    if abs(skew_s) <= SKEW_S_MAX:
        return fine("clock", f"within {SKEW_S_MAX} s of the cloud's")
    where = "ahead of" if skew_s > 0 else "behind"
    return failed("clock", f"{abs(skew_s)} s {where} the cloud's", "let NTP set the clocks of both machines")


def _ready(client: ControlPlaneClient) -> Iterator[Finding]:
    try:
        readiness = client.readiness()
    except ApothicError as error:
        yield failed("cloud ready", str(error), "see the server's log")
        return
    for name, check in readiness.checks.items():
        if not check.ok:
            yield failed(f"cloud: {name}", check.detail, "see the server's log")
    if readiness.ready:
        yield fine("cloud ready", f"{len(readiness.checks)} checks of its own passed")


def _key(client: ControlPlaneClient) -> Iterator[Finding]:
    try:
        identity = client.identity()
    except PermissionDeniedError as error:
        yield warned("key", str(error), "use a key whose scopes hold apps:read to see more")
        return
    except ApothicError as error:
        yield failed("key", str(error), "set APOTHIC_API_KEY to a valid key, or unset it to use the stored one")
        return
    yield fine("key", f"{identity.role} of {identity.org}, key {identity.key.prefix}…{identity.key.last4}")
    if identity.server_version != VERSION:
        yield warned(
            "versions", f"the cloud is {identity.server_version}, this program {VERSION}",
            f"pip install apothic-client=={identity.server_version}",
        )  # fmt: skip
    else:
        yield fine("versions", f"the cloud and this program are both {VERSION}")


def _workers(client: ControlPlaneClient) -> Finding:
    try:
        live = [one for one in client.list_workers() if one.status == "live"]
    except ApothicError as error:
        return skipped("workers", str(error))
    if not live:
        return warned("workers", "no worker is connected, so every job waits", "`apothic up`, or `apothic worker join`")
    return fine("workers", f"{len(live)} connected")
