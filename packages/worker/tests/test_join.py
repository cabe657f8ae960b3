"""Joining a cloud: what is sent, what is kept when the answer is good, bad or lost, and what is refused before."""

import http.server
import json
import threading
from contextlib import contextmanager

import pytest

from apothic.wire.tokens import new_token, token_kind
from apothic_worker import enrolment
from apothic_worker.cli import main
from apothic_worker.config import Config, ConfigError, check_sending, default_worker_name
from apothic_worker.enrolment import JoinFailed, JoinRefused

ELSEWHERE = "https://cloud.example"


@contextmanager
def answering(*answers):
    """A server that gives these answers, each (status, body) or None for a connection that ends; yields it."""
    left, seen = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers["Authorization"], body))
            answer = left.pop(0)
            if answer is None:
                self.close_connection = True
                return
            data = answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def token(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{new_token('li')}\n")
    file.chmod(0o600)
    return file


def prepared(data, url, name="box", *, is_insecure=False):
    data.mkdir(mode=0o700, exist_ok=True)
    return enrolment.prepare(data, server=url, name=name, is_insecure=is_insecure)


def test_a_worker_sends_its_own_credential_and_keeps_it_for_itself(tmp_path):
    join_token = new_token("li")
    with answering((201, {"name": "box", "joined_at": "now"})) as (url, seen):
        worker = prepared(tmp_path / "data", url)
        joined = enrolment.join(tmp_path / "data", worker, join_token)

    file = tmp_path / "data" / "credential.json"
    assert seen == [("/v1/link/join", f"Bearer {join_token}", {"name": "box", "credential": worker.token})]
    assert token_kind(worker.token) == "lw"
    assert joined.is_joined
    assert enrolment.load(tmp_path / "data") == joined
    assert file.stat().st_mode & 0o777 == 0o600
    assert join_token not in file.read_text()


@pytest.mark.parametrize("lost", [None, (502, b"bad gateway"), (503, {"code": "unavailable", "detail": "later"})])
def test_an_answer_that_is_lost_is_asked_for_with_the_same_credential(tmp_path, lost):
    data, join_token = tmp_path / "data", new_token("li")
    with answering(lost, (201, {"name": "box", "joined_at": "now"})) as (url, seen):
        with pytest.raises(JoinFailed, match="same command"):
            enrolment.join(data, prepared(data, url), join_token)
        again = enrolment.join(data, prepared(data, url), join_token)

    assert seen[0] == seen[1]
    assert again.is_joined


def test_a_refusal_leaves_nothing_behind(tmp_path):
    data = tmp_path / "data"
    refusal = {"code": "join_token_used", "detail": "this join token was used already"}
    with answering((401, refusal)) as (url, _), pytest.raises(JoinRefused, match="used already") as refused:
        enrolment.join(data, prepared(data, url), new_token("li"))

    assert (refused.value.status, refused.value.code) == (401, "join_token_used")
    assert list(data.iterdir()) == []


def test_a_credential_that_was_sent_to_one_server_is_never_sent_to_another(tmp_path):
    data = tmp_path / "data"
    with answering(None) as (first, _), pytest.raises(JoinFailed):
        enrolment.join(data, prepared(data, first), new_token("li"))
    sent = enrolment.load(data)

    other = prepared(data, "http://127.0.0.1:1")

    assert other.token != sent.token


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        (["--name", "local"], 2, "is no name for a worker"),
        (["--name", "Box"], 2, "lower-case"),
        (["--server", "http://192.0.2.1"], 2, "--insecure"),
        (["--server", "nonsense"], 2, "--server 'nonsense' is no address"),
        (["--executor", "process"], 2, "--trust-user-code"),
        (["--token-file", "/nowhere/at/all"], 2, "cannot be read: No such file"),
        (["--token-file", "/proc/self/fd"], 2, "cannot be read: Is a directory"),
        (["--name", ""], 2, "'' is no name for a worker"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_sent(tmp_path, token, capsys, change, status, told):
    data = tmp_path / "data"
    arguments = ["join", "--server", ELSEWHERE, "--token-file", str(token), "--name", "box", "--data", str(data)]

    assert main([*arguments, *change]) == status
    assert told in capsys.readouterr().err
    assert not data.exists()


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0", "1025", "x", ""])
def test_wrong_numbers_are_refused_in_words_of_their_bounds(tmp_path, capsys, number):
    with pytest.raises(SystemExit) as ended:
        main(["join", "--data", str(tmp_path / "data"), "--cpus", number])

    assert ended.value.code == 2
    assert "must be above 0 and at most 1024" in capsys.readouterr().err


def test_a_token_file_that_is_no_text_is_told_in_words(tmp_path, token, capsys):
    token.write_bytes(b"\xff\xfe\0binary")
    arguments = ["join", "--server", ELSEWHERE, "--token-file", str(token), "--data", str(tmp_path / "data")]

    assert main(arguments) == 2
    assert f"{token} holds no join token" in capsys.readouterr().err


def test_a_data_folder_that_cannot_be_made_is_told_in_words(tmp_path, token, capsys):
    arguments = ["join", "--server", ELSEWHERE, "--token-file", str(token), "--json"]

    assert main([*arguments, "--data", str(token / "below")]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == "data_folder"
    assert error["detail"].endswith("cannot be used: Not a directory; name another one with --data")


def test_a_refusal_of_the_server_leaves_no_folder_and_a_lost_answer_keeps_it(tmp_path, token, capsys):
    refusal = {"code": "join_token_used", "detail": "this join token was used already"}
    with answering((401, refusal), None) as (url, _):
        arguments = ["join", "--server", url, "--token-file", str(token), "--name", "box", "--trust-user-code"]
        arguments += ["--executor", "process"]
        refused = main([*arguments, "--data", str(tmp_path / "deep/refused")])
        lost = main([*arguments, "--data", str(tmp_path / "lost")])

    assert (refused, lost) == (3, 9)
    assert not (tmp_path / "deep").exists()
    assert (tmp_path / "lost/credential.json").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_token_file_that_others_may_read_is_refused(tmp_path, token, capsys, mode):
    token.chmod(mode)
    arguments = ["join", "--server", ELSEWHERE, "--token-file", str(token), "--name", "box", "--json"]

    assert main([*arguments, "--data", str(tmp_path / "data")]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], error["exit_code"]) == ("config_invalid", 2)
    assert "chmod 600" in error["detail"]


@pytest.mark.parametrize("kind", ["lk", "lw"])
def test_another_kind_of_token_is_refused_and_not_shown(tmp_path, token, capsys, kind):
    secret = new_token(kind)
    token.write_text(secret)
    arguments = ["join", "--server", ELSEWHERE, "--token-file", str(token), "--name", "box"]

    assert main([*arguments, "--data", str(tmp_path / "data")]) == 2
    told = capsys.readouterr().err
    assert "begins with li_" in told
    assert secret not in told


def test_a_folder_whose_worker_has_joined_is_no_place_for_another_one(tmp_path):
    data = tmp_path / "data"
    with answering((201, {"name": "box", "joined_at": "now"})) as (url, _):
        joined = enrolment.join(data, prepared(data, url), new_token("li"))

    assert enrolment.prepare(data, server=None, name=None, is_insecure=False) == joined
    with pytest.raises(ConfigError, match="has joined as box"):
        prepared(data, url, name="")
    with pytest.raises(ConfigError, match="has joined http"):
        prepared(data, ELSEWHERE)
    with pytest.raises(ConfigError, match="has joined as box"):
        prepared(data, url, name="other")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"server": 1}', '{"token": "lk_x"}'])
def test_a_damaged_credential_file_is_told(tmp_path, content):
    (tmp_path / "credential.json").write_text(content)
    (tmp_path / "credential.json").chmod(0o600)

    with pytest.raises(ConfigError, match=r"credential\.json"):
        enrolment.load(tmp_path)


def test_a_credential_file_that_others_may_read_is_refused(tmp_path):
    data = tmp_path / "data"
    with answering((201, {"name": "box", "joined_at": "now"})) as (url, _):
        enrolment.join(data, prepared(data, url), new_token("li"))
    (data / "credential.json").chmod(0o644)

    with pytest.raises(ConfigError, match="chmod 600"):
        enrolment.load(data)


@pytest.mark.parametrize("url", ["https://a.example", "http://127.0.0.1:1", "http://localhost", "http://[::1]:2"])
def test_tokens_go_over_https_and_to_this_host(url):
    check_sending(url, is_insecure=False)


@pytest.mark.parametrize(
    "url", ["http://a.example", "http://10.0.0.1:8400", "http://[fd00::1]", "http://localhost.example"]
)
def test_tokens_go_over_plain_http_to_other_hosts_only_when_told_so(url):
    with pytest.raises(ConfigError, match="plain http"):
        check_sending(url, is_insecure=False)
    check_sending(url, is_insecure=True)


@pytest.mark.parametrize(
    ("usual", "is_insecure", "told", "follows"),
    [
        ("https://a.example", False, "https://b.example", True),
        ("https://a.example", False, "http://b.example", False),
        ("https://a.example", False, "http://127.0.0.1:8400", False),
        ("https://a.example", False, "https://localhost:8400", False),
        ("https://a.example", True, "http://0.0.0.0:8400", False),
        ("http://10.0.0.1", True, "http://10.0.0.2", True),
        ("http://127.0.0.1:1", False, "http://127.0.0.1:2", True),
        ("http://127.0.0.1:1", False, "http://10.0.0.2", False),
        ("https://a.example", True, "file:///etc/passwd", False),
    ],
)
def test_an_address_that_a_server_names_is_followed_only_where_the_token_may_go(
    tmp_path, usual, is_insecure, told, follows
):
    config = Config(usual, new_token("lw"), tmp_path, is_insecure=is_insecure)

    assert config.follows(told) is follows


def test_the_name_of_a_host_becomes_the_name_of_a_worker():
    name = default_worker_name()

    assert name == name.lower()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
