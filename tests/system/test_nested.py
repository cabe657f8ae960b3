"""Functions that call functions: the SDK inside the sandbox, without configuration."""

import pytest

from apothic_server.testing.guarantees import guarantee

NESTED = "nested"


@pytest.fixture(scope="session")
def nested_app(cloud, person):
    """The app of nested_app.py, deployed; returns its name."""
    person.python(person.copy("tests/system/nested_app.py")).ok()
    return NESTED


@pytest.fixture
def result(cloud, nested_app):
    """Call a function of the app and return its result."""

    def call(function, *args):
        outcome = cloud.outcome(cloud.spawn(nested_app, function, *args))
        assert outcome["status"] == "succeeded", outcome
        return outcome["result"]

    return call


@pytest.mark.parametrize(
    ("function", "argument", "expected"),
    [
        ("quadruple", 3, 12),
        ("by_name", 4, 8),
        ("in_the_background", [1, 2], [2, 4, 2, "job.end"]),
        ("as_tasks", [1, 2, 3], [2, 4, 6]),
        ("in_threads", [1, 2, 3], [2, 4, 6]),
        ("in_a_child", 21, 42),
    ],
)
def test_a_function_calls_others_without_any_configuration(result, function, argument, expected):
    assert result(function, argument) == expected


def test_calls_beside_each_other_in_one_runner_have_children_of_their_own(cloud, nested_app):
    jobs = [cloud.spawn(nested_app, "beside_others", number) for number in range(4)]

    for number, job in enumerate(jobs):
        child, value = cloud.outcome(job)["result"]

        assert value == 2 * number
        assert (cloud.job(child)["parent_job_id"], cloud.job(child)["depth"]) == (job, 1)


def test_items_that_are_executed_together_have_children_of_their_own(cloud, result):
    children = [cloud.job(child) for child in result("spawn_many", 40)]

    assert [(child["parent_job_id"] or "").rpartition(".")[2] for child in children] == list(map(str, range(40)))


def test_a_thread_without_its_context_is_told_what_to_do_beside_other_calls(cloud, nested_app):
    jobs = [cloud.spawn(nested_app, "in_a_bare_thread", number) for number in (3, 4)]

    assert [cloud.outcome(job)["result"] for job in jobs] == [["call_unknown", 6], ["call_unknown", 8]]


@guarantee("G17.1", "job_token_scope")
def test_a_thread_that_a_call_left_behind_is_not_taken_for_the_next_call_and_pools_of_threads_work_in_both(result):
    assert result("leave_a_thread", 0) == [0, 2]
    assert result("leave_a_thread", 1) == [2, 4, "call_unknown"]


def test_the_record_of_a_job_names_its_caller(cloud, nested_app, person):
    job = cloud.spawn(nested_app, "beside_others", 1)
    child, _ = cloud.outcome(job)["result"]
    shown = person.apothic("job", "status", child).ok()

    assert (cloud.job(job)["parent_job_id"], cloud.job(job)["depth"]) == (None, 0)
    assert job in shown.out


def test_an_exception_comes_up_through_two_levels(cloud, nested_app):
    error = cloud.outcome(cloud.spawn(nested_app, "first_level", 5))["error"]

    assert error["type"] == "apothic.errors.RemoteExecutionError"
    assert "LookupError: the inner call failed" in error["message"]
    assert "ValueError: no 5" in str(error["causes"])


def test_cancelling_a_caller_cancels_the_call_that_it_waits_for(cloud, nested_app):
    parent = cloud.spawn(nested_app, "wait_for_hold", "x")
    cloud.wait_line(parent, "calling")
    cloud.request("POST", f"/v1/jobs/{parent}/cancel")

    assert cloud.outcome(parent)["status"] == "cancelled"
    freed = cloud.spawn(nested_app, "hold", "y")
    cloud.wait_line(freed, "holding")
    cloud.request("POST", f"/v1/jobs/{freed}/cancel")
    assert cloud.outcome(freed)["status"] == "cancelled"


@guarantee("G17.1", "job_token_scope")
def test_user_code_sees_no_token_and_what_it_sends_as_one_is_thrown_away(result):
    seen = result("what_is_seen")

    assert seen["environment"] == ["APOTHIC_API_SOCKET"]
    assert (seen["url"], seen["authorization"]) == ("unix:/run/apothic/api.sock", None)
    assert seen["beside"] == ["api.sock", "values.sock"]
    forged = {"Authorization": "Bearer lk_forged", "X-Apothic-Attempt": "a.b.1"}
    assert result("ask", "GET", "/v1/apps/nested/functions/double", forged)[0] == 200


@guarantee("G17.1", "job_token_scope")
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/v1/identity", 403, "forbidden"), ("/v1/apps", 403, "forbidden"), ("/healthz", 404, "not_found"),
     ("/v1/link", 404, "not_found")],
)  # fmt: skip
def test_user_code_reaches_jobs_and_functions_only(result, path, status, code):
    answered, body = result("ask", "GET", path, {})

    assert (answered, body["code"]) == (status, code)


@guarantee("G2.7", "nested_calls_no_deadlock")
def test_a_chain_of_six_calls_completes_on_two_processors(own_cloud):
    cloud = own_cloud("--cpus", "2")
    cloud.person.python(cloud.person.copy("tests/system/nested_app.py")).ok()

    outcome = cloud.outcome(cloud.spawn(NESTED, "chain1", 1))

    assert (outcome["status"], outcome["result"]) == ("succeeded", 6)


@guarantee("G2.7", "nested_calls_no_deadlock")
def test_a_function_that_spawns_and_follows_needs_no_second_processor(own_cloud):
    cloud = own_cloud("--cpus", "1")
    cloud.person.python(cloud.person.copy("tests/system/nested_app.py")).ok()

    outcome = cloud.outcome(cloud.spawn(NESTED, "follow_each_way", 1))

    assert (outcome["status"], outcome["result"]) == ("succeeded", ["job.end", 2, "job.end"])


@guarantee("G2.7", "nested_calls_no_deadlock")
def test_a_function_that_waits_for_its_own_only_place_is_told_at_once(cloud, nested_app):
    outcome = cloud.outcome(cloud.spawn(nested_app, "itself", 1))
    again = cloud.outcome(cloud.spawn(nested_app, "itself_with_room", 2))

    assert outcome["status"] == "failed"
    assert outcome["error"]["type"] == "apothic.errors.ConflictError"
    assert "max_containers=1" in outcome["error"]["message"]
    assert again["result"] == "bottom"
