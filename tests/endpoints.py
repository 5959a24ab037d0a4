"""What the tests of generation share: a resolved endpoint, small configs, one way to run both."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import http_endpoint
from scripted_endpoint import Fault

from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.chat.request import Request
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe
from generators.making.config import ConversationsConfig, QuestionsConfig
from generators.making.generation import generate_conversations, generate_questions

MIX: tuple[tuple[float, Fault], ...] = (
    (0.05, "429"),
    (0.05, "429_after"),
    (0.05, "500"),
    (0.025, "bad_json"),
    (0.025, "violation"),
    (0.02, "hang"),
    (0.01, "refusal"),
    (0.01, "cut_off"),
)
"""Share of requests that meet each fault."""


REASONS = {
    *("malformed", "cut_off", "empty", "refusal", "filtered", "failed", "near_duplicate"),
    *("gives_control_away", "copied_answer", "repeats_itself", "unsupported", "too_short"),
    "duplicate",
}
"""Why replies and documents can be dropped."""


class FaultMix:
    """Faults drawn for each request as it arrives; `counts` says how many there were of each."""

    def __init__(self, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._draw = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, number: int, body: Mapping[str, Any]) -> Fault | None:
        with self._lock:
            drawn = self._draw.random()
            if is_probe(body):
                return None
            for share, fault in MIX:
                drawn -= share
                if drawn < 0:
                    self.counts[fault] += 1
                    return fault
        return None


def resolved(endpoint: http_endpoint.ScriptedEndpoint, **changes: Any) -> ResolvedEndpoint:
    """Resolve the scripted endpoint as the stages want it, impatient so that tests are quick."""
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


def complete(
    endpoint: ResolvedEndpoint,
    folder: Path,
    requests: Sequence[Request],
    width: int = 8,
    *,
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[int], None] = lambda outcomes: None,
) -> tuple[list[Outcome], LLMClient]:
    """Complete requests, with the log in `folder`/log.sqlite; also return the client."""
    session = LLMSession(log=folder / "log.sqlite", concurrency=width, say=say)
    return session.run(endpoint, lambda client: client.complete_all(requests, report))


def small(controls: int = 4, **changes: Any) -> ConversationsConfig:
    """Plan so many controls of each kind."""
    kinds = {name: {"controls": controls} for name in ("persona", "goal", "extractive")}
    return ConversationsConfig.model_validate({"kinds": kinds} | changes)


def conversations(
    folder: Path, endpoint: ResolvedEndpoint, config: ConversationsConfig | None = None
) -> dict[str, Any]:
    """Conversations in `folder`/c, with the log in `folder`/log.sqlite."""
    return generate_conversations(
        folder / "c",
        LLMSession(log=folder / "log.sqlite", endpoint=endpoint),
        config=config or small(),
    )


def questions(
    folder: Path, endpoint: ResolvedEndpoint, config: QuestionsConfig | None = None, **more: Any
) -> dict[str, Any]:
    """Questions in `folder`/q about the conversations in `folder`/c."""
    return generate_questions(
        folder / "c",
        folder / "q",
        LLMSession(log=folder / "log.sqlite", endpoint=endpoint, **more),
        config=config or QuestionsConfig(per_control=4),
    )
