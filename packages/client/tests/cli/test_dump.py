"""The bundle for finding out what is wrong: what is in it, and that no secret is."""

import stat
import tarfile
from pathlib import Path

import pytest

from apothic._profiles import Profile, Profiles, write_profiles
from apothic.wire.tokens import KINDS, new_token

HEADER, PASSWORD = "c2VjcmV0LWhlYWRlcg", "hunter2hunter2"


@pytest.fixture
def data(home: Path) -> Path:
    folder = home / ".apothic" / "data"
    (folder / "postgres").mkdir(parents=True)
    return folder


def parts_of(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        found = {}
        for member in archive:
            opened = archive.extractfile(member)
            assert opened is not None
            found[member.name] = opened.read().decode()
        return found


def test_no_secret_is_in_it(connected, run, home, data, tmp_path, monkeypatch):
    tokens = {kind: new_token(kind) for kind in KINDS}
    monkeypatch.setenv("APOTHIC_API_KEY", tokens["lk"])
    monkeypatch.setenv("APOTHIC_AUTH_HEADER", f"Basic {HEADER}")
    monkeypatch.setenv("APOTHIC_DATABASE_URL", f"postgresql://me:{PASSWORD}@db/apothic")
    stored = new_token("lk")
    write_profiles(home / ".config/apothic/config.toml", Profiles("x", {"x": Profile("x", connected.url, stored)}))
    log = [*(f"event token={token}" for token in tokens.values())]
    log += [f'{{"authorization": "Bearer {HEADER}"}}', f"Authorization: Basic {HEADER}", f"password={PASSWORD}"]
    log += [f"dial postgresql://me:{PASSWORD}@db/apothic", f"kept {stored}"]
    for name in ("server.log", "worker.log", "postgres/postgres.log"):
        (data / name).write_text("\n".join(log))

    found = run("dump", str(tmp_path / "d.tar.gz"))
    text = "\n".join(parts_of(tmp_path / "d.tar.gz").values())

    assert found.code == 0
    assert [secret for secret in (*tokens.values(), stored, HEADER, PASSWORD) if secret in text + found.out] == []
    assert "event token=[removed]" in text
    assert stat.S_IMODE((tmp_path / "d.tar.gz").stat().st_mode) == 0o600


def test_it_has_versions_checks_the_state_of_the_cloud_and_the_end_of_its_logs(connected, run, data, tmp_path):
    (data / "server.log").write_bytes(b"old\n" + b"x" * (4 * 1024 * 1024) + b"\nnewest")

    run("dump", str(tmp_path / "d.tar.gz"))
    parts = parts_of(tmp_path / "d.tar.gz")

    assert '"apothic"' in parts["apothic-dump/versions.json"]
    assert '"reachable"' in parts["apothic-dump/doctor.json"]
    assert "dispatcher" in parts["apothic-dump/cloud/ready.txt"]
    assert parts["apothic-dump/logs/server.log"].endswith("newest")
    assert "old" not in parts["apothic-dump/logs/server.log"]


def test_without_a_cloud_it_says_so_in_its_parts(run, home, tmp_path):
    assert run("dump", str(tmp_path / "d.tar.gz")).code == 0
    assert "CloudNotRunning" in parts_of(tmp_path / "d.tar.gz")["apothic-dump/cloud/ready.txt"]


def test_a_file_is_never_overwritten(connected, run, tmp_path):
    (tmp_path / "d.tar.gz").write_text("mine")

    found = run("dump", str(tmp_path / "d.tar.gz"), "--json")

    assert (found.code, found.error["code"]) == (8, "file_exists")
    assert (tmp_path / "d.tar.gz").read_text() == "mine"
    assert run("dump", str(tmp_path / "no" / "d.tar.gz"), "--json").error["code"] == "file_unwritable"
