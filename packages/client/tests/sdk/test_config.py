"""Which address and which credential are used, and which never are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from apothic import CloudNotRunning, ConfigError
from apothic.config import Endpoint, parse_url, resolve

URL = "http://127.0.0.1:8400"
OTHER = "https://cloud.example.com"


def find(home: Path, base_url: str | None = None, *, env: dict[str, str] | None = None, **given: str) -> Endpoint:
    return resolve(base_url, environ={"HOME": str(home), **(env or {})}, **given)


def write_endpoint(home: Path, mode: int = 0o600, **fields: Any) -> Path:
    path = home / ".apothic" / "endpoint.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"url": URL, "key": "lk_local", "pid": os.getpid(), **fields}))
    path.chmod(mode)
    return path


def write_config(folder: Path, text: str) -> None:
    path = folder / "apothic" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


PROFILE = f'active = "work"\n[profiles.work]\nbase_url = "{OTHER}"\napi_key = "lk_work"\n'


def test_nothing_configured_means_that_no_cloud_runs(tmp_path: Path) -> None:
    with pytest.raises(CloudNotRunning, match="apothic up"):
        find(tmp_path)


def test_the_running_cloud_is_found_with_its_key(tmp_path: Path) -> None:
    write_endpoint(tmp_path)
    found = find(tmp_path)

    assert (found.url, found.authorization, found.pid) == (URL, "Bearer lk_local", os.getpid())
    assert "lk_local" not in repr(found)


def test_the_socket_for_large_values_is_used_only_with_the_key_beside_it(tmp_path: Path) -> None:
    write_endpoint(tmp_path, values="/data/values.sock")

    assert find(tmp_path).values == find(tmp_path, URL).values == "/data/values.sock"
    assert find(tmp_path, URL, api_key="lk_mine").values is None
    assert find(tmp_path, OTHER, api_key="lk_mine").values is None
    write_endpoint(tmp_path, values=7)
    assert find(tmp_path).values is None


def test_the_active_profile_comes_before_the_running_cloud(tmp_path: Path) -> None:
    write_endpoint(tmp_path)
    write_config(tmp_path / ".config", PROFILE)

    assert find(tmp_path).authorization == "Bearer lk_work"


def test_the_profile_file_follows_xdg_config_home(tmp_path: Path) -> None:
    write_config(tmp_path / "elsewhere", PROFILE)

    assert find(tmp_path, env={"XDG_CONFIG_HOME": str(tmp_path / "elsewhere")}).url == OTHER


def test_a_config_without_active_profile_is_passed_over(tmp_path: Path) -> None:
    write_endpoint(tmp_path)
    write_config(tmp_path / ".config", PROFILE.partition("\n")[2])

    assert find(tmp_path).url == URL


def test_variables_come_before_files_and_arguments_before_variables(tmp_path: Path) -> None:
    write_config(tmp_path / ".config", PROFILE)
    env = {"APOTHIC_BASE_URL": URL, "APOTHIC_API_KEY": "lk_env"}

    assert find(tmp_path, env=env).authorization == "Bearer lk_env"
    assert find(tmp_path, "http://127.0.0.1:1", env=env, api_key="lk_arg").url == "http://127.0.0.1:1"
    assert find(tmp_path, env=env, api_key="lk_arg").authorization == "Bearer lk_arg"


def test_header_comes_before_token_and_token_before_key(tmp_path: Path) -> None:
    env = {"APOTHIC_BASE_URL": URL, "APOTHIC_API_KEY": "k", "APOTHIC_AUTH_TOKEN": "t", "APOTHIC_AUTH_HEADER": "Basic h"}

    assert find(tmp_path, env=env).authorization == "Basic h"
    assert find(tmp_path, env=env | {"APOTHIC_AUTH_HEADER": ""}).authorization == "Bearer t"
    assert find(tmp_path, URL, api_key="k", auth_token="t", auth_header="Own h").authorization == "Own h"


def test_a_key_in_a_variable_is_used_for_the_stored_address(tmp_path: Path) -> None:
    write_endpoint(tmp_path)

    assert find(tmp_path, env={"APOTHIC_API_KEY": "lk_env"}).authorization == "Bearer lk_env"


def test_a_stored_key_never_goes_to_another_address(tmp_path: Path) -> None:
    write_endpoint(tmp_path)
    write_config(tmp_path / ".config", PROFILE)

    assert find(tmp_path, env={"APOTHIC_BASE_URL": "http://127.0.0.1:8402"}).authorization is None
    assert find(tmp_path, "http://cloud.example.com").authorization is None
    assert find(tmp_path, "http://localhost:8400").authorization is None


def test_a_stored_key_is_used_for_its_own_address_however_that_is_named(tmp_path: Path) -> None:
    write_endpoint(tmp_path)
    write_config(tmp_path / ".config", PROFILE)

    assert find(tmp_path, "HTTPS://Cloud.Example.COM:443/").authorization == "Bearer lk_work"
    assert find(tmp_path, env={"APOTHIC_BASE_URL": URL}).authorization == "Bearer lk_local"


def test_a_key_exported_with_an_address_does_not_go_to_another_one(tmp_path: Path) -> None:
    env = {"APOTHIC_BASE_URL": OTHER, "APOTHIC_API_KEY": "lk_env"}

    assert find(tmp_path, URL, env=env).authorization is None
    assert find(tmp_path, OTHER, env=env).authorization == "Bearer lk_env"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_that_others_can_read_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = write_endpoint(tmp_path, mode)

    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        find(tmp_path)


def test_a_key_file_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:  # only root can give a file away; others see the same check through the mode
        write_endpoint(tmp_path, 0o606)
    else:
        os.chown(write_endpoint(tmp_path), 65534, 65534)

    with pytest.raises(ConfigError, match=r"another user|by others"):
        find(tmp_path)


@pytest.mark.parametrize("fields", [{"url": 1}, {"key": None}, {"pid": "1"}, {"url": "ftp://x"}, {"key": "a\nb"}])
def test_a_malformed_key_file_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    write_endpoint(tmp_path, **fields)

    with pytest.raises(ConfigError):
        find(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["active = ", 'active = "x"\n', 'active = "x"\n[profiles.x]\n', 'active = "x"\n[profiles.x]\nbase_url = 1\n'],
)
def test_a_malformed_profile_is_refused(tmp_path: Path, text: str) -> None:
    write_config(tmp_path / ".config", text)

    with pytest.raises(ConfigError, match=r"config\.toml"):
        find(tmp_path)


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://x", "http://", "http://a b", "http://u:p@x", "http://x?a", "http://x/#a", "http://x:0",
     "http://x:65536", "http://x:a", "http://x\r\nA: b", "http://[::1", "http://é"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        find(tmp_path, url)


@pytest.mark.parametrize(
    ("url", "shown", "netloc"),
    [
        ("http://X:80/", "http://x", "x"),
        ("https://x:8443/a/b/", "https://x:8443/a/b", "x:8443"),
        ("http://[::1]:8400", "http://[::1]:8400", "[::1]:8400"),
    ],
)
def test_an_address_has_one_form(url: str, shown: str, netloc: str) -> None:
    found = parse_url(url)

    assert (found.url, found.netloc) == (shown, netloc)


@pytest.mark.parametrize("key", ["a\r\nX: y", "ключ", "a\0b"])
def test_a_credential_that_would_change_the_request_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="cannot be sent"):
        find(tmp_path, URL, api_key=key)
