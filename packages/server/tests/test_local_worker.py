"""How a worker beside the server is kept running."""

from apothic_server.local_worker import RESTART_FIRST_S, RESTART_MAX_S, restart_wait_s


def test_a_worker_that_never_works_is_started_less_and_less_often():
    waits = [restart_wait_s(None, has_dialled_in=False)]
    for _ in range(9):
        waits.append(restart_wait_s(waits[-1], has_dialled_in=False))

    assert waits[:3] == [RESTART_FIRST_S, 2 * RESTART_FIRST_S, 4 * RESTART_FIRST_S]
    assert waits[-2:] == [RESTART_MAX_S, RESTART_MAX_S]


def test_a_worker_that_worked_is_started_again_at_once():
    assert restart_wait_s(RESTART_MAX_S, has_dialled_in=True) == RESTART_FIRST_S
