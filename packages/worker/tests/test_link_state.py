"""The link protocol without a link."""

from dataclasses import fields

import msgspec
import pytest

from apothic.wire import link
from apothic.wire.values import Value
from apothic_server.testing.guarantees import guarantee
from apothic_worker.link_codec import NAMES, LinkBroken, ServerMessage, decode_server, encode_worker
from apothic_worker.link_state import KEPT_LOG_BYTES_MAX, MESSAGE_BYTES_MAX, Drop, Haste, LinkState
from apothic_worker.testing.scripted_server import WorkerMessage

MACHINE = link.Machine("h", "sandbox", [], [], {}, 1.0, 1024, ["3.11"])
RUNNER = link.RunnerRef("r1", "o1", "d1", "f", 1, 256, 1)
KEY = ("j1", 1)
END = link.Finished("j1", 1, "succeeded", Value("json", b"1"))


def encode(**frame: object) -> bytes:
    return msgspec.msgpack.encode(frame)


def decode(messages: list[bytes]) -> list[WorkerMessage]:
    return [msgspec.msgpack.decode(message, type=WorkerMessage) for message in messages]


def assign(job: str = "j1") -> link.Assign:
    return link.Assign("r1", job, 1, 1, 60, Value("json", b"[[],{}]"))


class Wakes(list[Haste]):
    """The wake-ups asked for."""

    def __call__(self, haste: Haste) -> None:
        self.append(haste)


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


@pytest.fixture
def state(wakes: Wakes) -> LinkState:
    """A linked state with nothing to send."""
    state = LinkState(incarnation="i1", name="n", machine=MACHINE, credit=3, wake=wakes)
    welcome(state)
    return state


def welcome(state: LinkState, now_ms: int = 5, **changes: object) -> list[object]:
    state.open(now_ms, [RUNNER])
    state.take()
    found = state.receive(encode(welcome=[link.Welcome("w1", 10.0, 30.0, 1, **changes)]))
    return list(found)


def test_the_structures_have_the_fields_of_the_contract_in_order():
    assert list(ServerMessage.__struct_fields__) == list(link.ServerFrame.__annotations__)
    assert list(WorkerMessage.__struct_fields__) == list(link.WorkerFrame.__annotations__)
    assert list(NAMES.values()) == list(link.WorkerFrame.__annotations__)


def test_nothing_but_hello_is_sent_before_welcome(wakes):
    state = LinkState(incarnation="i1", name="n", machine=MACHINE, credit=3, wake=wakes)
    state.open(5, [])
    first = decode(state.take())
    state.draining(15.0)

    assert first[0].hello[0].incarnation == "i1"
    assert state.take() == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"text",
        encode(surprise=[]),
        encode(assign=[{"job": 1}]),
        encode(assign=3),
        msgspec.msgpack.encode([1, 2]),
        b"\x91" * 5000,
    ],
)
def test_what_is_no_message_breaks_the_link(state, data):
    with pytest.raises(LinkBroken):
        state.receive(data)


def test_an_order_before_welcome_breaks_the_link(wakes):
    state = LinkState(incarnation="i1", name="n", machine=MACHINE, credit=3, wake=wakes)
    state.open(5, [])

    with pytest.raises(LinkBroken):
        state.receive(encode(assign=[assign()]))


def test_items_act_in_the_order_of_the_contract():
    data = encode(assign=[assign()], cancel=[link.Cancel("j0", 1, 1.0)], settled=[link.Settled("j0", 1)])

    assert [type(item) for item in decode_server(data)] == [link.Settled, link.Cancel, link.Assign]


def test_one_tick_makes_one_message(state, wakes):
    state.receive(encode(assign=[assign(), assign("j2")]))
    wakes.clear()
    state.started(KEY)
    state.logs(KEY, [link.LogLine("stdout", 1, "x")])
    state.finished(END)
    state.finished(link.Finished("j2", 1, "lost"))

    (message,) = decode(state.take())

    assert (len(message.started), len(message.logs), len(message.finished)) == (1, 1, 2)
    assert wakes == [Haste.SOON, Haste.TICK, Haste.TICK, Haste.NOW]  # nobody waits for company that cannot come


def test_big_results_are_sent_in_several_messages(state):
    jobs = [f"j{n}" for n in range(12)]
    state.receive(encode(assign=[assign(job) for job in jobs]))
    for job in jobs:
        state.finished(link.Finished(job, 1, "succeeded", Value("pickle", bytes(1024 * 1024))))

    messages = state.take()

    assert len(messages) > 1
    assert max(map(len, messages)) < MESSAGE_BYTES_MAX + 2 * 1024 * 1024
    assert [end.job for message in decode(messages) for end in message.finished] == jobs


def test_ends_of_large_chunks_travel_in_several_messages_and_come_back_whole(state):
    line = link.LogLine("stdout", 7, "x" * 1000)
    items = link.ChunkResult(2, [1], b"x" * 1_500_000, [link.ItemOutput(1, [line] * 500)], "3.11")
    ends = [link.Finished(f"k{number}", 1, "succeeded", items=items) for number in range(4)]
    state.receive(encode(assign=[assign(end.job) for end in ends]))
    for end in ends:
        state.finished(end)
    messages = state.take()

    assert len(messages) == 2
    assert [end for message in decode(messages) for end in message.finished] == ends


def test_an_end_is_repeated_until_it_is_settled(state):
    state.receive(encode(assign=[assign()]))
    state.started(KEY)
    state.finished(END)
    state.take()
    state.close()
    welcome(state)
    again = decode(state.take())
    state.receive(encode(settled=[link.Settled("j1", 1)]))
    state.close()
    welcome(state)

    assert (again[0].started, again[0].finished) == ([link.Started("j1", 1)], [END])
    assert state.take() == []
    assert state.held == []


def test_settled_for_an_attempt_that_runs_changes_nothing(state):
    state.receive(encode(assign=[assign()]))
    state.receive(encode(settled=[link.Settled("j1", 1)]))

    assert state.held == [link.AttemptRef("j1", 1)]


def test_a_repeated_assign_is_dropped(state):
    first = state.receive(encode(assign=[assign()]))

    assert first == [assign()]
    assert state.receive(encode(assign=[assign()])) == []


def test_what_is_unknown_is_dropped_and_its_end_never_reported(state):
    state.receive(encode(assign=[assign()]))
    state.close()
    found = welcome(state, unknown=[link.AttemptRef("j1", 1)], unknown_runners=["r1"])
    state.finished(END)

    assert found[-1] == Drop((KEY,), ("r1",))
    assert state.take() == []


def test_a_heartbeat_waits_for_the_answer_to_the_last_one(state):
    assert state.heartbeat(100, 7)
    assert not state.heartbeat(200, 7)
    state.receive(encode(heartbeat_answer=[link.HeartbeatAnswer(100, [])]))

    assert state.renewed_at_ms == 100
    assert state.heartbeat(300, 8)


def test_the_lease_counts_from_the_hello_that_was_answered(state):
    assert state.renewed_at_ms == 5


def test_an_answer_to_an_old_heartbeat_renews_nothing(state):
    state.heartbeat(100, 0)
    state.receive(encode(heartbeat_answer=[link.HeartbeatAnswer(99, [])]))

    assert state.renewed_at_ms == 5


def test_logs_wait_for_the_next_link_up_to_a_bound_and_the_loss_is_told(state):
    state.receive(encode(assign=[assign()]))
    state.close()
    line = link.LogLine("stdout", 7, "x" * 1024)
    for _ in range(KEPT_LOG_BYTES_MAX // 1024 + 10):
        state.logs(KEY, [line])
    welcome(state)

    lines = _numbered(state)

    assert sorted(lines) == list(range(KEPT_LOG_BYTES_MAX // 1024 + 1))
    assert lines[max(lines)] == "10240 bytes of output dropped: the link to the server was away"


@guarantee("G5.8", "log_loss_is_visible")
def test_lines_are_said_again_until_they_are_taken(state):
    state.receive(encode(assign=[assign()]))
    for text in ("a", "b", "c"):
        state.logs(KEY, [link.LogLine("stdout", 7, text), link.LogLine("stdout", 7, text * 2)])
    sent = _numbered(state)
    state.receive(encode(logs_taken=[link.LogsTaken("j1", 1, 4)]))
    state.close()
    state.logs(KEY, [link.LogLine("stdout", 8, "while it was away")])
    welcome(state)
    again = _numbered(state)
    state.receive(encode(logs_taken=[link.LogsTaken("j1", 1, 7), link.LogsTaken("j9", 1, 7)]))
    state.close()
    welcome(state)

    assert sent == {0: "a", 1: "aa", 2: "b", 3: "bb", 4: "c", 5: "cc"}
    assert again == {4: "c", 5: "cc", 6: "while it was away"}
    assert _numbered(state) == {}


def test_lines_that_were_sent_are_forgotten_when_too_many_wait(state):
    state.receive(encode(assign=[assign()]))
    for number in range(KEPT_LOG_BYTES_MAX // 1024 + 10):
        state.logs(KEY, [link.LogLine("stdout", 7, str(number).ljust(1024))])
    sent = _numbered(state)
    state.close()
    welcome(state)

    assert sorted(sent) == list(range(KEPT_LOG_BYTES_MAX // 1024 + 10))
    assert sorted(_numbered(state)) == list(range(10, KEPT_LOG_BYTES_MAX // 1024 + 10))


def _numbered(state):
    found = [item for message in decode(state.take()) for item in message.logs]
    return {number: line.text for item in found for number, line in enumerate(item.lines, item.first_number)}


def test_draining_is_said_again_on_every_link(state):
    state.draining(15.0)
    state.take()
    state.close()
    welcome(state)

    assert decode(state.take())[0].draining == [link.Draining(15.0)]


def test_every_item_of_a_worker_can_be_encoded():
    for kind in NAMES:
        assert fields(kind)
    hello = link.Hello(1, "0", "i", "n", MACHINE, 1)

    assert decode([encode_worker([hello, END])])[0].finished == [END]
