"""A small world made through the API alone: one org with an app, its function, a job, a group and a worker."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from apothic.wire.tokens import new_token
from apothic_server.testing.asgi import Answer, AsgiClient

ARCHIVE = b"the files of an app"
ARCHIVE_SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
LEAP_DAYS = {"cron": "0 0 29 2 *"}
OCTETS = {"content-type": "application/octet-stream"}


@dataclass(frozen=True)
class World:
    """What exists, in the text forms of the face."""

    app: str
    function: str
    deployment_id: str
    function_id: str
    job_id: str
    schedule_id: str
    group_id: str
    join_token: str = ""
    worker: str = "box"

    @property
    def sha256(self) -> str:
        return ARCHIVE_SHA256

    @property
    def deployment_key(self) -> str:
        return self.deployment_id.partition(":")[2]


def manifest(*names: str, **options: Any) -> dict[str, Any]:
    """Return a manifest whose functions all have `options`."""
    return {
        "module": "hello",
        "app_variable": "app",
        "python": "3.11",
        "client_version": "0.1.0",
        "functions": [{"name": name, **options} for name in names],
    }


async def upload(client: AsgiClient, data: bytes = ARCHIVE) -> Answer:
    """Store `data` as an archive."""
    return await client.request("PUT", f"/v1/archives/{hashlib.sha256(data).hexdigest()}", headers=OCTETS, body=data)


async def deploy(client: AsgiClient, app: str, *names: str, **options: Any) -> Answer:
    """Deploy functions under the archive of this module, uploaded before if need be."""
    await upload(client)
    body = {"manifest": manifest(*names, **options), "archive_sha256": ARCHIVE_SHA256}
    return await client.request("POST", f"/v1/apps/{app}/deployments", json=body)


async def join(client: AsgiClient, name: str) -> str | None:
    """Enrol a worker and return its credential; None when the client's key may not, or the name is taken."""
    made = await client.request("POST", "/v1/join-tokens", json={})
    if made.status == 403:
        return None
    credential = new_token("lw")
    holder = client.as_holder_of(made.json["token"])
    joined = await holder.request("POST", "/v1/link/join", json={"name": name, "credential": credential})
    return credential if joined.status == 201 else None


async def make_world(client: AsgiClient, app: str = "hello-world", function: str = "greet") -> World:
    """Deploy one function and call it once without waiting; who runs the cloud also gets a worker."""
    await join(client, "box")
    unused = await client.request("POST", "/v1/join-tokens", json={})
    deployment = (await deploy(client, app, function, schedule=LEAP_DAYS)).json
    schedules = (await client.request("GET", f"/v1/schedules?app={app}")).json["items"]
    function_id = deployment["functions"][0]["function_id"]
    call = await client.request("POST", f"/v1/functions/{function_id}/calls?wait_s=0", json={"args": ["world"]})
    group = await client.request("POST", f"/v1/functions/{function_id}/groups", json={})
    await client.request("PUT", f"/v1/blobs/{ARCHIVE_SHA256}", headers=OCTETS, body=ARCHIVE)
    return World(
        app=app,
        function=function,
        deployment_id=deployment["deployment_id"],
        function_id=function_id,
        job_id=call.json["job_id"],
        schedule_id=schedules[0]["schedule_id"],
        group_id=group.json["id"],
        join_token=unused.json.get("join_token_id", ""),
    )
