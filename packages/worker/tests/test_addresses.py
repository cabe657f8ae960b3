"""Which address a worker dials next."""

from apothic_worker.addresses import Addresses


def test_all_known_addresses_are_tried_in_turn():
    addresses = Addresses(["http://b"])
    addresses.told(["http://c", "http://a"])
    dialled = []
    for _ in range(4):
        dialled.append(addresses.dial("http://a"))
        addresses.failed()

    assert dialled == ["http://a", "http://b", "http://c", "http://a"]


def test_an_address_that_a_server_named_is_dialled_once_and_again_when_it_welcomed():
    addresses = Addresses()
    addresses.dial("http://a")
    addresses.moved("http://b")
    moved = addresses.dial("http://a")
    addresses.failed()
    back = addresses.dial("http://a")

    addresses.moved("http://b")
    addresses.dial("http://a")
    addresses.told(["http://a", "http://b"])
    addresses.welcomed("http://a")

    assert (moved, back) == ("http://b", "http://a")
    assert (addresses.dial("http://a"), addresses.linked) == ("http://b", "http://b")


def test_told_addresses_replace_older_ones_and_nothing_but_http_is_believed():
    addresses = Addresses()
    addresses.told(["http://b", "file:///etc/passwd"])
    addresses.told([])
    assert addresses.known("http://a") == ["http://a", "http://b"]
    addresses.told(["https://c"])
    assert addresses.known("http://a") == ["http://a", "https://c"]
