"""URLs of stores, and the loader of named queries."""

import pytest

from apothic_server.store.address import StoreAddress
from apothic_server.store.errors import StoreError
from apothic_server.store.statements import load, parse


def test_a_url_names_every_part():
    address = StoreAddress.from_url(
        "postgresql://me:p%40ss@db.example:6543/cloud?sslmode=verify-full&sslrootcert=/ca.pem"
    )

    assert (address.host, address.port, address.user, address.database) == ("db.example", 6543, "me", "cloud")
    assert address.password == "p@ss"
    assert address.tls == {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
    assert "p@ss" not in repr(address)


def test_a_socket_folder_can_stand_in_the_hosts_place():
    assert StoreAddress.from_url("postgresql://me@/cloud?host=/run/postgresql").host == "/run/postgresql"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://me:hunter2@host/db",
        "postgresql://host/db",
        "postgresql://me:hunter2@host",
        "postgresql://me:hunter2@host:port/db",
        "postgresql://me:hunter2@host/db?color=red",
        "postgresql://me:hunter2@[host/db",
    ],
)
def test_a_bad_url_is_refused_without_repeating_it(url):
    with pytest.raises(StoreError) as caught:
        StoreAddress.from_url(url)

    assert caught.value.code == "store_url"
    assert "hunter2" not in caught.value.detail


def test_queries_are_found_by_name_and_keep_their_order():
    found = parse("jobs", "-- the file\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT 2\n")

    assert dict(found) == {"one": "SELECT 1", "two": "-- why\nSELECT 2"}


def test_an_unknown_query_names_the_known_ones():
    with pytest.raises(KeyError, match=r"jobs\.sql has no query 'three'; it has one"):
        parse("jobs", "-- name: one\nSELECT 1")["three"]


@pytest.mark.parametrize(
    "text", ["-- name: a\nSELECT 1\n-- name: a\nSELECT 2", "-- name: a\n", "-- name: a b\nSELECT 1"]
)
def test_a_file_with_an_unusable_query_is_refused(text):
    with pytest.raises(ValueError, match=r"jobs\.sql"):
        parse("jobs", text)


def test_an_unknown_file_is_an_error():
    with pytest.raises(FileNotFoundError):
        load("no_such_resource")
