from typing import Any

import pytest
from pydantic import ValidationError

from core.errors import EndpointError
from generators.llm.endpoint.config import EndpointConfig
from generators.llm.endpoint.resolve import model_identity, open_endpoint
from generators.making.config import GenerateSection


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"endpoint": {"base_url": "http://x/v1"}}, "takes no base_url"),
        ({"endpoint": {"mode": "batch"}}, "has no batches"),
        ({"endpoint": {"api_key": "sk"}}, "api_key"),
        ({"conversations": {"kinds": {}}}, "at least one kind"),
        ({"conversations": {"kinds": {"goal": {"views": ["stimulus_completion"]}}}}, "views among"),
        ({"questions": {"types": []}}, "distinct types"),
        ({"questions": {"per_control": 17}}, "less than or equal to 16"),
    ],
)
def test_a_wrong_section_cannot_be_built(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GenerateSection.model_validate(section)


def test_the_identity_of_a_model_is_no_address() -> None:
    here = EndpointConfig(model="m", base_url="http://here/v1")
    there = EndpointConfig(model="m", base_url="http://there/v1", timeout_s=1)
    assert model_identity(here) == model_identity(there) == "m"
    assert model_identity(EndpointConfig(model="m", revision="2")) == "m@2"
    assert model_identity(EndpointConfig(), "ab" * 32) == "gguf:" + "ab" * 32


def test_the_key_is_read_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-1 \n")
    with open_endpoint(EndpointConfig(model="m", api_key_env="MY_KEY")) as endpoint:
        assert endpoint.api_key == "sk-1"
        assert endpoint.base_url == "https://api.openai.com/v1"
    with open_endpoint(EndpointConfig(model="m", base_url="http://here/v1/")) as endpoint:
        assert endpoint.url_without_query == "http://here/v1"


@pytest.mark.parametrize("name", ["MY_KEY", None])
def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = EndpointConfig(model="m", api_key_env=name)
    with (
        pytest.raises(EndpointError, match=f"variable {name or 'OPENAI_API_KEY'} is not set"),
        open_endpoint(config),
    ):
        pass
