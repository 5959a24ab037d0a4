"""What the tests of generation share: a resolved endpoint, small configs, one way to run both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.endpoint import ResolvedEndpoint
from generators.generate_config import ConversationsConfig, QuestionsConfig
from generators.generation import generate_conversations, generate_questions
from generators.progress import silent
from generators.testing import ScriptedEndpoint


def resolved(endpoint: ScriptedEndpoint, **changes: Any) -> ResolvedEndpoint:
    """The scripted endpoint as the stages want it, impatient so that tests are quick."""
    settings: dict[str, Any] = {
        "base_url": endpoint.base_url,
        "api_key": "sk-secret-0123456789",
        "model": "scripted",
        "identity": "scripted@1",
        "timeout_s": 5,
        "probe_timeout_s": 5,
        "retries": 3,
        "backoff_s": 0.01,
    }
    return ResolvedEndpoint(**(settings | changes))


def small(controls: int = 4, **changes: Any) -> ConversationsConfig:
    """A plan of so many controls of each kind."""
    kinds = {name: {"controls": controls} for name in ("persona", "goal", "extractive")}
    return ConversationsConfig.model_validate({"kinds": kinds} | changes)


def conversations(
    folder: Path, endpoint: ResolvedEndpoint, config: ConversationsConfig | None = None
) -> dict[str, Any]:
    """Conversations in `folder`/c, with the log in `folder`/log.sqlite."""
    return generate_conversations(
        folder / "c",
        folder / "log.sqlite",
        config=config or small(),
        endpoint=endpoint,
        concurrency=8,
        progress=silent,
    )


def questions(
    folder: Path, endpoint: ResolvedEndpoint, config: QuestionsConfig | None = None, **more: Any
) -> dict[str, Any]:
    """Questions in `folder`/q about the conversations in `folder`/c."""
    return generate_questions(
        folder / "c",
        folder / "q",
        folder / "log.sqlite",
        config=config or QuestionsConfig(per_control=4),
        endpoint=endpoint,
        concurrency=8,
        progress=silent,
        **more,
    )
