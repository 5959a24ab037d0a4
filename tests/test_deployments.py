"""Deployments as Prefect and Compose read them, and flows without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate

import flows
from pipelines.orchestration.shown_run import current_run

CHECKOUT = Path(__file__).parents[1]
DOCUMENT = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())
DEPLOYMENTS = {one.name: one for one in PrefectYamlModel.model_validate(DOCUMENT).deployments}


@pytest.mark.parametrize("name", ["quickstart-process", "quickstart-docker"])
def test_a_deployment_names_a_flow_and_parameters_that_it_takes(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment.entrypoint is not None
    flow: Flow[..., Any] = load_flow_from_entrypoint(deployment.entrypoint)
    assert flow.name == flows.latentqa_schedule.name
    schema = parameter_schema(flow).model_dump()
    parameters = deployment.parameters or {}
    validate(parameters, schema)
    assert parameters.keys() <= schema["properties"].keys()
    assert (CHECKOUT / parameters["config"]).is_file()
    found = [(one.cron, one.timezone) for one in deployment.schedules or []]  # type: ignore[union-attr]
    assert found == [("0 3 * * *", "UTC")]


def test_the_pools_are_one_of_processes_and_one_of_containers() -> None:
    found = [one.work_pool for one in DEPLOYMENTS.values() if one.work_pool]
    pools = {str(pool.name): pool for pool in found}
    assert sorted(pools) == ["latentqa-docker", "latentqa-process"]
    container = pools["latentqa-docker"].job_variables
    assert container["image"] == "latentqa:latest"
    # a worker fetches a tag `latest` from a registry always, where it is not told otherwise
    assert container["image_pull_policy"] == "IfNotPresent"


def test_artifacts_and_the_cache_of_containers_lie_in_volumes() -> None:
    lines = (CHECKOUT / "deploy" / "Dockerfile").read_text().splitlines()
    told = dict(line.split(maxsplit=1) for line in lines if line.startswith(("WORKDIR", "ENV")))
    found = {
        name: one.work_pool.job_variables for name, one in DEPLOYMENTS.items() if one.work_pool
    }
    composed = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())["services"]
    for deployment in DEPLOYMENTS.values():
        place = f"{told['WORKDIR']}/{deployment.parameters['root']}"
        assert told["ENV"] == f"LATENTQA_ROOT={place}"
        for volumes in (found["quickstart-docker"]["volumes"], composed["worker"]["volumes"]):
            # a container without a cache converts the embedded model again, for a minute
            assert [one.split(":")[1] for one in volumes] == [place, "/root/.cache/latentqa"]
    (step,) = DEPLOYMENTS["quickstart-docker"].pull or []
    assert step == {
        "prefect.deployments.steps.set_working_directory": {"directory": told["WORKDIR"]}
    }


@pytest.mark.parametrize(
    ("flow", "fields"),
    [
        (flows.latentqa_schedule, {"config": "string", "root": "string", "overrides": "array"}),
        (
            flows.latentqa,
            {"config": "string", "root": "string", "overrides": "array", "smoke": "boolean"},
        ),
    ],
)
def test_parameters_have_types_and_a_sentence_for_the_form(
    flow: Any, fields: dict[str, str]
) -> None:
    schema = parameter_schema(flow).model_dump()
    shown = schema["properties"]
    assert {name: shown[name].get("type") for name in fields} == fields
    assert all(field["description"] for field in shown.values())
    assert schema["required"] == ["config"]


def test_the_composed_services_use_postgresql_and_a_password() -> None:
    document = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())
    services = document["services"]
    assert set(services) == {"database", "server", "worker"}
    settings = services["server"]["environment"]
    url = settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert url.startswith("postgresql+asyncpg://prefect:${POSTGRES_PASSWORD}@database")
    assert "PREFECT_SERVER_API_AUTH_STRING" in settings
    worker = services["worker"]["environment"]
    assert worker["PREFECT_API_URL"] == "http://server:4200/api"
    assert worker["PREFECT_API_AUTH_STRING"] == "${PREFECT_AUTH}"
    assert {one["restart"] for one in services.values()} == {"unless-stopped"}
    # an image of this name in a registry is somebody else's
    ours = [one for one in services.values() if one["image"] == "latentqa:latest"]
    assert [one["pull_policy"] for one in ours] == ["never", "never"]


@pytest.mark.parametrize("ours", [True, False])
def test_a_point_of_a_sweep_fails_alone_unless_the_server_is_lost(
    monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    def fail(**arguments: Any) -> None:
        error = MemoryError("of the device")
        current_run().error = error if ours else None
        raise error

    monkeypatch.setattr(flows, "latentqa", fail)
    document = {"label": "rank=2", "config": "a.yaml", "root": "a", "overrides": []}
    if ours:
        (found,) = flows.latentqa_sweep.fn([document])
        assert found["error"] == "MemoryError: of the device"
        assert current_run().error is None
    else:
        with pytest.raises(MemoryError):
            flows.latentqa_sweep.fn([document])
