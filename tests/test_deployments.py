"""prefect.yaml and the files of deploy/, as Prefect and Compose read them."""

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
    config = parameters["config"].removeprefix("/latentqa/")
    assert (CHECKOUT / config).is_file()
    found = [(one.cron, one.timezone) for one in deployment.schedules or []]  # type: ignore[union-attr]
    assert found == [("0 3 * * *", "UTC")]


def test_the_pools_are_one_of_processes_and_one_of_containers() -> None:
    found = [one.work_pool for one in DEPLOYMENTS.values() if one.work_pool]
    pools = {str(pool.name): pool for pool in found}
    assert sorted(pools) == ["latentqa-docker", "latentqa-process"]
    assert pools["latentqa-docker"].job_variables["image"] == "latentqa:latest"


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
    url = settings["PREFECT_API_DATABASE_CONNECTION_URL"]
    assert url.startswith("postgresql+asyncpg://prefect:${POSTGRES_PASSWORD}@database")
    assert "PREFECT_SERVER_API_AUTH_STRING" in settings
    assert services["worker"]["environment"]["PREFECT_API_URL"] == "http://server:4200/api"
