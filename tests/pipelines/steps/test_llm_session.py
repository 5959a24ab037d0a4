"""The LLM of a step: its errors and lines name the settings that the experiment has for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.errors import BudgetError, EndpointError
from core.processes.task_pool import InProcess
from core.runtime import Runtime
from generators.llm.endpoint.config import EndpointConfig
from generators.llm.prompt_files import PromptFiles
from pipelines.steps.shared.llm_session import open_session
from pipelines.steps.shared.step import StepCall

SECTION = "evaluate.judge.endpoint"


def call(folder: Path, said: list[str]) -> StepCall:
    experiment = SimpleNamespace(runtime=Runtime())
    own = {"root": folder, "experiment": experiment, "pool": InProcess(), "say": said.append}
    return cast(StepCall, SimpleNamespace(**own))


def test_errors_and_lines_name_the_settings_of_their_own_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    said: list[str] = []
    settings: dict[str, Any] = {"model": "m", "base_url": "http://host/v1"}
    missing = EndpointConfig.model_validate({**settings, "api_key_env": "MY_KEY"})
    with (
        pytest.raises(EndpointError, match=rf"^{SECTION}.api_key_env.*or set {SECTION} to"),
        open_session(call(tmp_path, said), missing, PromptFiles(), SECTION),
    ):
        pass
    found = EndpointConfig.model_validate(settings)
    with open_session(call(tmp_path, said), found, PromptFiles(), SECTION) as session:
        session.say("generate.endpoint: m refuses seed")
    with (
        pytest.raises(BudgetError, match=f"^{SECTION}.budget_usd: spent"),
        open_session(call(tmp_path, said), found, PromptFiles(), SECTION),
    ):
        raise BudgetError("generate.endpoint.budget_usd: spent")
    assert said == [f"{SECTION}: m refuses seed"]
