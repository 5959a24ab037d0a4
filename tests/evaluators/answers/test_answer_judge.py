"""An LLM's verdicts on written answers, of a scripted judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from endpoints import resolved
from scripted_endpoint import ScriptedEndpoint

from evaluators.answers.judge import _draw_answers, judge_answers
from evaluators.config import EvaluateConfig, JudgeConfig
from evaluators.measure.metrics import EvaluationMetrics, ForeignTarget, TargetIdentity
from evaluators.measure.result_files import (
    ANSWERS,
    ANSWERS_FILE,
    JUDGED_FILE,
    METRICS_FILE,
    RESULTS_FILE,
    VERDICTS_FILE,
    write_table,
)
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe, plausible_reply

CONFIG = EvaluateConfig(bootstrap=200, judge=JudgeConfig(answers=14))
CONTROLS = 14
SIDES = ("right", "other", "difference")


def write_answers(folder: Path, right: Callable[[int], str]) -> Path:
    rows = [
        {
            **dict.fromkeys(ANSWERS.names),
            "split": "test",
            "view": "control",
            "control_id": f"c{i}",
            "example_id": f"e{i}",
            "question": f"Which colour is number {i}?",
            "gold": f"colour {i}",
            "right": right(i),
            "other": f"colour {i + 100}",
        }
        for i in range(CONTROLS)
    ]
    write_table(folder / ANSWERS_FILE, rows, ANSWERS)
    target = TargetIdentity(digests={"weights": "a"})
    foreign = ForeignTarget(differs=("weights",), decoder=target, store=target)
    metrics = EvaluationMetrics(reading={}, foreign_target=foreign)
    (folder / METRICS_FILE).write_text(json.dumps(metrics.to_json()))
    return folder


def fields(body: Mapping[str, Any]) -> dict[str, str]:
    """Parse what the judge is asked about."""
    asked = [m["content"] for m in body["messages"] if m["content"].startswith("Question:")]
    lines = [line.split(": ", 1) for line in asked[-1].splitlines()]
    return {line[0]: line[1] for line in lines if len(line) == 2}


def by_gold(body: Mapping[str, Any]) -> Any:
    """Reply as a judge that can compare."""
    if is_probe(body):
        return plausible_reply(body)
    found = fields(body)
    given, gold = found["Given answer"], found["Correct answer"]
    return {"verdict": "right" if given == gold else "vague" if given == "a colour" else "wrong"}


def first_listed(body: Mapping[str, Any]) -> Any:
    """Reply as a judge that takes what stands first."""
    if is_probe(body):
        return plausible_reply(body)
    text = next(m["content"] for m in body["messages"][::-1] if "Verdict, one of" in m["content"])
    return {"verdict": text.rsplit("Verdict, one of ", 1)[1].split(",")[0]}


def ask(folder: Path, reply: Callable[..., Any], right: Callable[[int], str]) -> dict[str, Any]:
    out = folder / "out"
    for place in (folder, out):
        place.mkdir(exist_ok=True)
    with ScriptedEndpoint(reply) as endpoint:
        session = LLMSession(endpoint=resolved(endpoint), log=folder / "log.sqlite")
        found = judge_answers(write_answers(folder, right), out, session, config=CONFIG)
        return {name: value for part in found for name, value in part.to_json().items()}


def test_a_perfect_decoder_is_right_and_gains(tmp_path: Path) -> None:
    found = ask(tmp_path, by_gold, lambda i: f"colour {i}")["judged"]["test"]["control"]
    assert found["shares"]["right"]["right"] == {"estimate": 1.0, "low": 1.0, "high": 1.0, "n": 14}
    assert found["shares"]["right"]["other"]["estimate"] == 0
    assert found["shares"]["right"]["difference"]["low"] == 1
    assert found["agreement"] == {"n": 28, "raw": 1.0, "kappa": 1.0}


def test_a_decoder_that_ignores_activations_gains_nothing(tmp_path: Path) -> None:
    found = ask(tmp_path, by_gold, lambda i: f"colour {i + 100}")["judged"]["test"]["control"]
    for verdict in ("right", "vague", "wrong"):
        assert found["shares"][verdict]["difference"] == {
            "estimate": 0.0,
            "low": 0.0,
            "high": 0.0,
            "n": 14,
        }


def test_vague_answers_are_no_right_ones(tmp_path: Path) -> None:
    found = ask(tmp_path, by_gold, lambda i: "a colour")["judged"]["test"]["control"]
    assert found["shares"]["vague"]["right"]["estimate"] == 1
    assert found["shares"]["right"]["right"]["estimate"] == 0


def test_a_judge_that_does_not_look_disagrees_with_itself(tmp_path: Path) -> None:
    found = ask(tmp_path, first_listed, lambda i: f"colour {i}")["judged"]["test"]["control"]
    assert found["agreement"]["raw"] == 0


def test_verdicts_stand_beside_their_answers(tmp_path: Path) -> None:
    counts = ask(tmp_path, by_gold, lambda i: f"colour {i}")
    rows = pq.read_table(tmp_path / "out" / VERDICTS_FILE).to_pylist()
    assert len(rows) == 28
    assert {(row["side"], row["first"], row["second"]) for row in rows} == {
        ("right", "right", "right"),
        ("other", "wrong", "wrong"),
    }
    written = json.loads((tmp_path / "out" / JUDGED_FILE).read_bytes())
    assert written == {"judged": counts["judged"]}
    assert counts["requests"] == 56


def test_every_share_and_the_agreement_are_rows_of_results(tmp_path: Path) -> None:
    ask(tmp_path, by_gold, lambda i: f"colour {i}")
    rows = pq.read_table(tmp_path / "out" / RESULTS_FILE).to_pylist()
    found = {row["metric"]: row for row in rows}
    sides = [f"judged.{v}.{s}" for v in ("right", "vague", "wrong") for s in SIDES]
    assert set(found) == {*sides, "judged.agreement.raw", "judged.agreement.kappa"}
    assert found["judged.right.difference"]["low"] == 1
    assert found["judged.agreement.kappa"]["note"] == "28 answers, judged twice"
    assert {row["foreign_target"] for row in rows} == {True}  # as of the evaluation


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    first = ask(tmp_path, by_gold, lambda i: f"colour {i}")
    again = ask(tmp_path, by_gold, lambda i: f"colour {i}")
    assert (again["requests"], again["cached_requests"]) == (0, 56)
    assert again["judged"] == first["judged"]


def test_what_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    def mixed(body: Mapping[str, Any]) -> Any:
        odd = not is_probe(body) and fields(body)["Question"].endswith("number 3?")
        return {"verdict": "perhaps"} if odd else by_gold(body)

    found = ask(tmp_path, mixed, lambda i: f"colour {i}")["judged"]["test"]["control"]
    assert (found["shares"]["right"]["right"]["n"], found["unread"]) == (13, 1)


def test_as_many_are_judged_as_were_asked_for_the_same_each_time() -> None:
    rows = [
        {"split": "test", "view": "control", "example_id": f"e{i}", "question": f"{i}"}
        for i in range(9)
    ]
    few = CONFIG.model_copy(update={"judge": JudgeConfig(answers=5)})
    chosen = [{row["question"] for row in _draw_answers(rows[::step], few)} for step in (1, -1)]
    assert len(chosen[0]) == 5
    assert chosen[0] == chosen[1]
