"""Several clouds: `login`, `profile`, `whoami`, and which one is used."""

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from apothic.wire.tokens import new_token

KEY = new_token("lk")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    return file


@pytest.fixture
def config(home: Path) -> Path:
    return home / ".config" / "apothic" / "config.toml"


def test_a_key_that_is_known_becomes_the_profile_in_use(cloud, run, key_file, config):
    found = run("login", cloud.url, "--name", "work", "--key-file", str(key_file))

    assert found.code == 0
    assert "knows you as owner of main" in found.out
    assert KEY not in found.out + found.err
    assert cloud.asked[-1].headers["authorization"] == f"Bearer {KEY}"
    assert (stat.S_IMODE(config.stat().st_mode), stat.S_IMODE(config.parent.stat().st_mode)) == (0o600, 0o700)
    assert run("whoami", "--json").json["source"] == "profile work"


def test_a_key_that_is_not_known_is_not_kept(cloud, run, shapes, key_file, config):
    cloud.script["GET", "/v1/identity"] = shapes.refused(401, "unauthenticated", "No such key.")

    assert run("login", cloud.url, "--key-file", str(key_file)).code == 3
    assert not config.exists()


def test_a_key_that_may_not_ask_who_it_is_is_kept(cloud, run, shapes, key_file, config):
    cloud.script["GET", "/v1/identity"] = shapes.refused(403, "forbidden", "Not with this key.")

    assert run("login", cloud.url, "--key-file", str(key_file), "--json").json["org"] is None
    assert KEY in config.read_text()


def test_the_key_is_read_from_standard_input(cloud, home, config):
    command = [sys.executable, "-m", "apothic", "login", cloud.url, "--key-file", "-"]
    ended = subprocess.run(command, input=f"{KEY}\n", capture_output=True, text=True)

    assert ended.returncode == 0
    assert KEY in config.read_text()


def test_the_key_is_asked_for_on_a_terminal_and_not_shown(cloud, home, config):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "apothic", "login", cloud.url, "--name", "asked"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    while b"Key:" not in shown:
        shown += os.read(ours, 1000)
    os.write(ours, f"{KEY}\n".encode())
    try:
        while chunk := os.read(ours, 1000):
            shown += chunk
    except OSError:  # the terminal is closed
        pass
    os.close(ours)

    assert process.wait() == 0
    assert KEY.encode() not in shown
    assert "asked" in config.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("http://cloud.example.com", "--key-file", "KEY"), 8, "plain http to another host"),
        (("ftp://x", "--key-file", "KEY"), 8, "is not an address"),
        (("http://127.0.0.1:1",), 2, "give --key-file"),
        (("http://127.0.0.1:1", "--key-file", "/nowhere"), 8, "cannot be read"),
        (("http://127.0.0.1:1", "--key-file", "WRONG"), 8, "no key of a cloud"),
        (("http://127.0.0.1:1", "--key-file", "KEY", "--name", "a b"), 2, "no name of a profile"),
        (("http://127.0.0.1:1", "--key-file", "KEY"), 9, ""),
    ],
    ids=["plain http", "no address", "nobody to ask", "no file", "no key", "no name", "no cloud"],
)
def test_what_is_wrong_is_refused_and_nothing_is_kept(run, key_file, tmp_path, config, arguments, code, said):
    (tmp_path / "wrong").write_bytes(b"\xff" + KEY.encode())
    files = {"KEY": str(key_file), "WRONG": str(tmp_path / "wrong")}

    found = run("login", *(files.get(word, word) for word in arguments))

    assert (found.code, found.out) == (code, "")
    assert said in found.err
    assert not config.exists()


def test_profiles_are_listed_used_and_removed(cloud, run, key_file):
    for name in ("work", "home"):
        assert run("login", cloud.url, "--name", name, "--key-file", str(key_file)).code == 0

    assert [(one["profile"], one["active"]) for one in run("profile", "list", "--json").json["items"]] == [
        ("work", False),
        ("home", True),
    ]
    assert run("profile", "use", "work").code == 0
    assert run("profile", "show", "--json").json["profile"] == "work"
    assert KEY not in run("profile", "show").out
    assert run("profile", "remove", "work").code == 2
    assert run("profile", "remove", "work", "--yes").code == 0
    assert run("whoami").code == 9
    assert run("profile", "use", "home").code == 0
    assert run("whoami").code == 0
    assert run("profile", "use", "--none").code == 0
    assert run("whoami").code == 9


def test_a_profile_that_does_not_exist_is_refused_with_near_ones(cloud, run, key_file):
    run("login", cloud.url, "--name", "work", "--key-file", str(key_file))

    for command in (("use", "wrok"), ("show", "wrok"), ("remove", "wrok", "--yes")):
        found = run("profile", *command)

        assert found.code == 5
        assert "Did you mean work?" in found.err
        assert "`apothic profile list`" in found.err
    assert run("profile", "use").code == 2
    assert run("profile", "use", "work", "--none").code == 2


def test_a_variable_names_another_profile_and_an_address_goes_before_both(cloud, run, key_file, monkeypatch):
    for name in ("work", "home"):
        run("login", cloud.url, "--name", name, "--key-file", str(key_file))
    monkeypatch.setenv("APOTHIC_PROFILE", "work")

    assert run("whoami", "--json").json["source"] == "profile work"
    assert "APOTHIC_PROFILE is set" in run("profile", "use", "home").err
    monkeypatch.setenv("APOTHIC_BASE_URL", cloud.url)
    assert run("whoami", "--json").json["source"] == "APOTHIC_BASE_URL"
    monkeypatch.delenv("APOTHIC_BASE_URL")
    monkeypatch.setenv("APOTHIC_PROFILE", "gone")
    found = run("whoami")
    assert found.code == 8
    assert "profile of APOTHIC_PROFILE, 'gone' does not exist" in found.err


@pytest.mark.parametrize(
    "text",
    ["theme = 1", "active = 1", "[profiles.x]\nbase_url = 1", '[profiles.x]\nbase_url = "u"\nn = 1'],
    ids=["other entry", "no name", "no address", "other field"],
)
def test_a_file_with_other_things_is_not_rewritten(cloud, run, key_file, config, text):
    config.parent.mkdir(parents=True)
    config.write_text(text)

    assert run("login", cloud.url, "--key-file", str(key_file)).code == 8
    assert config.read_text() == text
