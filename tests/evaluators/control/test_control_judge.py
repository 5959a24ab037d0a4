"""An LLM's verdicts on steered replies, of a scripted judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from endpoints import resolved
from scripted_endpoint import ScriptedEndpoint

from core.records.steering_control import SteeringControl, WantedAnswer, write_control
from evaluators.control.config import ControlSection
from evaluators.control.llm_judge import judge_replies
from evaluators.control.metrics import JudgedControls
from evaluators.control.result_files import REPLIES, REPLIES_FILE
from evaluators.measure.result_files import write_table
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe, plausible_reply

PROMPTS = 10
PIRATE = SteeringControl(
    control="pirate",
    description="The assistant is a pirate.",
    questions=(WantedAnswer(question="Who?", answer="A pirate."),),
)
CONFIG = ControlSection.model_validate(
    {"bootstrap": 200, "judge": {"measures": ["adherence", "sentiment"], "prompts": 9}}
)


def write_replies(folder: Path) -> Path:
    (folder / "pirate").mkdir(parents=True)
    write_control(folder / "pirate" / "control.yaml", PIRATE)
    texts = {"none": "A plain reply.", "weights": "Arr, a happy reply!", "sft": ""}
    rows = [
        {**dict.fromkeys(REPLIES.names), "control": "pirate", "method": method, "reply": text}
        | {"prompt": f"Question {i}?", "likelihood": 0.0, "strength": 1.0}
        for method, text in texts.items()
        for i in range(PROMPTS)
    ]
    write_table(folder / REPLIES_FILE, rows, REPLIES)
    return folder


def by_words(body: Mapping[str, Any]) -> Any:
    """Reply as a judge that looks at the reply, and sees nothing of an empty one."""
    if is_probe(body):
        return plausible_reply(body)
    asked = next(m["content"] for m in body["messages"][::-1] if m["role"] == "user")
    if any("(nothing)" in message["content"] for message in body["messages"]):
        return {"verdict": "?"}  # also when it is asked once more
    if "Instruction: The assistant is a pirate." in asked:
        return {"verdict": "faithful" if "Arr" in asked else "unfaithful"}
    return {"verdict": "positive" if "happy" in asked else "neutral"}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[JudgedControls, Path]:
    base = tmp_path_factory.mktemp("judged")
    (base / "out").mkdir()
    with ScriptedEndpoint(by_words) as endpoint:
        session = LLMSession(endpoint=resolved(endpoint), log=base / "log.sqlite")
        control = write_replies(base / "control")
        metrics, _ = judge_replies(control, base / "out", session, config=CONFIG)
    return metrics, base / "out"


def test_a_method_is_scored_against_the_unsteered_target(
    judged: tuple[JudgedControls, Path],
) -> None:
    found = judged[0].controls["pirate"].measures
    assert found["adherence"].unsteered.estimate == -1
    assert found["adherence"].gains["weights"].model_dump() == {
        "estimate": 2.0,
        "low": 2.0,
        "high": 2.0,
        "n": 9,
    }
    assert found["sentiment"].gains["weights"].estimate == 1
    assert found["adherence"].agreement.raw == 1


def test_replies_without_a_verdict_are_left_out_and_counted(
    judged: tuple[JudgedControls, Path],
) -> None:
    found = judged[0].controls["pirate"].measures["adherence"]
    assert found.unread == 9
    assert "sft" not in found.gains


def test_verdicts_and_numbers_are_kept(judged: tuple[JudgedControls, Path]) -> None:
    metrics, out = judged
    rows = pq.read_table(out / "verdicts.parquet").to_pylist()
    assert len(rows) == 2 * 3 * 9
    assert {(r["method"], r["first"]) for r in rows if r["measure"] == "sentiment"} == {
        ("none", "neutral"),
        ("weights", "positive"),
        ("sft", None),
    }
    numbers = {r["metric"]: r for r in pq.read_table(out / "results.parquet").to_pylist()}
    assert numbers["pirate.weights.judged_adherence"]["low"] == 2
    written = json.loads((out / "control_judged.json").read_text())
    assert JudgedControls.model_validate(written) == metrics
