"""Where attempts are placed: bounds that no placement may break, and reasons that people read."""

from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.functions import BatchSpec, FunctionSpec
from apothic.wire.ids import DeploymentId, FunctionId, IncarnationId, JobId, OrgId, RunnerId
from apothic.wire.link import Machine
from apothic_server.domain.decide.placement import Need, StartOn, UseRunner, Wait, place
from apothic_server.domain.fleet import Fleet, Runner, Worker
from apothic_server.testing.guarantees import guarantee

ORG = OrgId("org")


def machine(cpus=2.0, memory_mb=4096, pythons=("3.11",)):
    return Machine("host", "sandbox", [], [], {}, cpus, memory_mb, list(pythons))


def fleet_of(*machines, credit=256):
    fleet = Fleet()
    for number, offered in enumerate(machines):
        fleet.add_worker(Worker(IncarnationId(f"w{number}"), ORG, f"w{number}", offered, credit, 0.0))
    return fleet


def need(number=1, **spec):
    group = (DeploymentId(f"d{number}"), FunctionId(f"f{number}"))
    return Need(ORG, group, "3.11", FunctionSpec("work", **spec))


def apply(where, asked, fleet, job):
    """Do what a grant does to the fleet."""
    runner = where.runner if isinstance(where, UseRunner) else None
    if isinstance(where, StartOn):
        for idle in where.evict:
            assert idle.is_idle
            fleet.remove_runner(idle)
        spec = asked.spec
        sizes = (spec.cpu, spec.memory_mb, spec.places)
        runner = Runner(RunnerId(f"r-{job}"), ORG, asked.group, where.worker, *sizes, 0.0)
        runner.is_batching = spec.batching is not None
        fleet.add_runner(runner)
    runner.attempts.add(JobId(job))
    return runner


specs = st.fixed_dictionaries(
    {
        "cpu": st.integers(1, 3),
        "memory_mb": st.sampled_from([256, 1024, 3000]),
        "max_containers": st.integers(1, 3),
        "tasks_per_container": st.integers(1, 3),
    }
)
batched = st.fixed_dictionaries(
    {"batching": st.builds(BatchSpec, st.integers(1, 4)), "max_containers": st.integers(1, 3)}
)


@guarantee("G2.7", "slots_never_exceeded")
@given(st.data())
def test_no_sequence_of_grants_and_ends_exceeds_any_bound(data):
    fleet = fleet_of(machine(2, 4096), machine(4, 2048), credit=3)
    asked = [need(number, **data.draw(specs | batched)) for number in range(3)]
    running = []
    for step in range(data.draw(st.integers(1, 25))):
        if running and data.draw(st.booleans()):
            runner, job = running.pop(data.draw(st.integers(0, len(running) - 1)))
            runner.attempts.discard(job)
            continue
        one = data.draw(st.sampled_from(asked))
        where = place(one, fleet)
        if not isinstance(where, Wait):
            running.append((apply(where, one, fleet, f"j{step}"), JobId(f"j{step}")))
        for each in asked:
            group = fleet.group(each.group)
            assert len(group) <= each.spec.max_containers
            assert all(len(runner.attempts) <= each.spec.places for runner in group.values())
        for worker in fleet.workers.values():
            assert worker.cpus_free >= 0
            assert worker.memory_free_mb >= 0
            assert worker.held <= worker.credits


@given(specs)
def test_placing_touches_nothing(spec):
    fleet = fleet_of(machine())
    before = (dict(fleet.runners), {name: dict(worker.runners) for name, worker in fleet.workers.items()})

    place(need(**spec), fleet)

    assert before == (dict(fleet.runners), {name: dict(worker.runners) for name, worker in fleet.workers.items()})


def test_an_idle_runner_is_used_before_a_new_one_is_started():
    fleet = fleet_of(machine())
    asked = need(max_containers=2)
    runner = apply(place(asked, fleet), asked, fleet, "j1")
    runner.attempts.clear()

    assert place(asked, fleet) == UseRunner(runner)


def test_a_batch_that_is_collected_is_filled_before_an_idle_runner_is_used():
    fleet = fleet_of(machine())
    asked = need(batching=BatchSpec(2), max_containers=2)
    runners = [apply(place(asked, fleet), asked, fleet, f"j{number}") for number in range(3)]
    assert runners[0] is runners[1] is not runners[2]
    runners[0].attempts.clear()

    assert place(asked, fleet) == UseRunner(runners[2])
    runners[2].begun.add(JobId("j2"))
    assert place(asked, fleet) == UseRunner(runners[0])
    runners[0].attempts.add(JobId("j3"))
    runners[0].begun.add(JobId("j3"))
    assert place(asked, fleet) == Wait("all 2 of max_containers=2 runners are busy with 1 batch each")


def test_idle_runners_of_others_make_room_for_memory():
    fleet = fleet_of(machine(2, 1024))
    other, asked = need(1, memory_mb=1024), need(2, memory_mb=512)
    runner = apply(place(other, fleet), other, fleet, "j1")
    runner.attempts.clear()

    assert place(asked, fleet) == StartOn(fleet.workers[IncarnationId("w0")], (runner,))


def test_each_kind_of_waiting_says_why():
    assert place(need(), Fleet()) == Wait("no worker is connected")
    assert "largest connected machine offers 2 cpu" in reason(need(cpu=8), fleet_of(machine(2)))
    assert "no machine has Python 3.11; present: 3.13" in reason(need(), fleet_of(machine(pythons=["3.13"])))
    assert "placement asks for: gpu" in reason(need(placement={"gpu": {"in": ["RTX_4070"]}}), fleet_of(machine()))


def test_only_what_no_connected_machine_could_ever_run_is_hopeless():
    fleet = fleet_of(machine(2))
    apply(place(need(1), fleet), need(1), fleet, "j1")

    assert not is_hopeless(need(1), fleet)
    assert not is_hopeless(need(2, cpu=2), fleet)
    assert not is_hopeless(need(), Fleet())
    assert is_hopeless(need(3, cpu=8), fleet)
    assert is_hopeless(need(4, placement={"gpu": {"in": ["RTX_4070"]}}), fleet)


def test_a_function_at_max_containers_says_so():
    fleet = fleet_of(machine())
    asked = need(max_containers=1)
    apply(place(asked, fleet), asked, fleet, "j1")

    assert reason(asked, fleet) == "all 1 of max_containers=1 runners are busy with 1 job each"


def test_a_worker_without_a_link_gets_nothing_new():
    fleet = fleet_of(machine())
    fleet.workers[IncarnationId("w0")].is_linked = False

    assert place(need(), fleet) == Wait("no worker is connected")


def is_hopeless(asked, fleet):
    where = place(asked, fleet)
    assert isinstance(where, Wait)
    return where.is_hopeless


def reason(asked, fleet):
    where = place(asked, fleet)
    assert isinstance(where, Wait)
    return where.reason
