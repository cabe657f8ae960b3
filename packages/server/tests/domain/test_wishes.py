"""What a machine does not offer of what placement asks for, in words."""

from typing import Any

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.ids import DeploymentId, FunctionId, IncarnationId, OrgId
from apothic.wire.link import Machine
from apothic_server.domain.decide.placement import Need, StartOn, Wait, place
from apothic_server.domain.decide.wishes import unmet_wishes
from apothic_server.domain.fleet import Fleet, Worker

ORG = OrgId("org")


def machine(cpus: float = 4.0, memory_mb: int = 8192) -> Machine:
    return Machine("host", "sandbox", [], [], {}, cpus, memory_mb, ["3.11"])


def placed(placement: dict[str, Any], *machines: Machine) -> StartOn | Wait:
    fleet = Fleet()
    for number, one in enumerate(machines):
        fleet.add_worker(Worker(IncarnationId(f"w{number}"), ORG, f"w{number}", one, 256, 0.0))
    spec = FunctionSpec("work", placement=placement)
    found = place(Need(ORG, (DeploymentId("d"), FunctionId("f")), "3.11", spec), fleet)
    assert isinstance(found, (StartOn, Wait))
    return found


@pytest.mark.parametrize(
    "placement",
    [
        {"min_cpu_cores": 4, "min_cpu_ram_gb": 8.0},
        {"max_cost_per_hour_usd": 0.1, "secure_cloud_only": False},
        {"offer_filters": {"cpu_cores": {"gte": 2, "lt": 8}, "cpu_ram": {"gt": 8000}}},
        {"offer_filters": {"cpu_cores": {"in": [2, 4], "neq": 3}, "gpu_name": {"notin": ["RTX_3060"]}}},
    ],
    ids=["named", "price", "range", "sets"],
)
def test_a_machine_that_offers_it_will_do(placement: dict[str, Any]):
    assert unmet_wishes(placement, machine()) == []
    assert isinstance(placed(placement, machine()), StartOn)


@pytest.mark.parametrize(
    ("placement", "unmet"),
    [
        ({"gpu": ["RTX_4070", "RTX_4070S"]}, ["gpu=RTX_4070 or RTX_4070S"]),
        ({"min_cpu_cores": 5}, ["min_cpu_cores=5"]),
        ({"secure_cloud_only": True, "geolocation": "US"}, ["secure_cloud_only=true", "geolocation=US"]),
        ({"offer_filters": {"cpu_ram": {"lte": 8191}, "gpu_ram": {"gte": 24000}}},
         ["cpu_ram lte 8191", "gpu_ram gte 24000"]),
        ({"offer_filters": {"cpu_cores": {"like": 4, "gt": "3"}}}, ["cpu_cores like 4", "cpu_cores gt 3"]),
    ],
    ids=["gpu", "processors", "place", "filters", "no operator"],
)  # fmt: skip
def test_what_is_missing_is_named_as_it_was_asked_for(placement: dict[str, Any], unmet: list[str]):
    assert unmet_wishes(placement, machine()) == unmet


def test_a_job_waits_for_what_the_nearest_machine_lacks():
    wishes = {"min_cpu_cores": 3, "gpu": "RTX_4070"}

    found = placed(wishes, machine(cpus=2), machine(cpus=4))

    assert found == Wait("no machine offers what placement asks for: gpu=RTX_4070", is_hopeless=True)


def test_a_job_goes_to_the_machine_that_offers_it():
    found = placed({"min_cpu_ram_gb": 8}, machine(memory_mb=4096), machine(cpus=2))

    assert isinstance(found, StartOn)
    assert found.worker.name == "w1"


ODD = (
    None, True, "4", [], {}, [[1]], {"gt": None}, {"cpu_cores": 1}, {"cpu_cores": {"in": 4}}, {"x": {"eq": [1]}},
    10**400,
)  # fmt: skip


@pytest.mark.parametrize("name", ["offer_filters", "gpu", "min_cpu_cores", "disk_gb"])
@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_placement_of_any_form_is_answered(name: str, value: Any):
    for text in unmet_wishes({name: value}, machine()):
        assert 0 < len(text) <= 80
