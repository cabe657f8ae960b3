"""TLS: the same requests, encrypted, and strangers refused. The certificate is for `localhost` only."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from apothic import ControlPlaneClient, UnavailableError

from .conftest import ScriptedServer, make_core

PEM = Path(__file__).parent / "localhost.pem"


@pytest.fixture
def secure() -> Iterator[ScriptedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    server = ScriptedServer(tls=context)
    server.deploys()
    yield server
    server.close()


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))


def client_of(server: ScriptedServer, host: str) -> ControlPlaneClient:
    return ControlPlaneClient.from_core(make_core(f"https://{host}:{server.port}"))


@pytest.mark.usefixtures("trusted")
def test_requests_share_one_encrypted_connection(secure: ScriptedServer) -> None:
    client = client_of(secure, "localhost")
    names = [client.get_function("hello-world", "greet").name for _ in range(3)]
    body = b"x" * 3_000_000
    client.put_archive(body, hashlib.sha256(body).hexdigest())
    client.close()

    assert names == ["greet"] * 3
    assert secure.connections == 1


@pytest.mark.usefixtures("trusted")
def test_asyncio_requests_are_encrypted_too(secure: ScriptedServer) -> None:
    client = client_of(secure, "localhost")
    info = asyncio.run(client.aio.get_function("hello-world", "greet"))
    client.close()

    assert info.name == "greet"


@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_name_is_refused(secure: ScriptedServer) -> None:
    with pytest.raises(UnavailableError, match="cannot be trusted") as caught:
        client_of(secure, "127.0.0.1").identity()

    assert (caught.value.code, caught.value.retryable) == ("tls_failed", False)
    assert secure.received == []


def test_an_unknown_authority_is_refused(secure: ScriptedServer) -> None:
    with pytest.raises(UnavailableError) as caught:
        client_of(secure, "localhost").identity()

    assert caught.value.code == "tls_failed"
    assert secure.received == []
