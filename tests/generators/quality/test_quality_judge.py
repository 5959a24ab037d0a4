"""Verdicts by a rubric, and the agreement of two passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from endpoints import resolved
from scripted_endpoint import ScriptedEndpoint

from core.errors import ConfigError
from generators.llm.prompt_files import PromptFiles
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe, plausible_reply
from generators.quality.agreement import Agreement, agreement
from generators.quality.judge import Judgement, judge, rubric_named

RUBRIC = rubric_named(PromptFiles(), "judge_answer")


def items(answers: Sequence[str]) -> list[dict[str, str]]:
    return [{"control": "Be terse.", "question": "What?", "answer": answer} for answer in answers]


def ask(
    folder: Path, endpoint: ScriptedEndpoint, answers: Sequence[str], passes: int = 2
) -> Judgement:
    session = LLMSession(log=folder / "log.sqlite")
    judged, _ = session.run(
        resolved(endpoint), lambda client: judge(client, RUBRIC, items(answers), passes=passes)
    )
    return judged


def says(rule: Mapping[str, str]) -> Any:
    """Make a judge that gives each answer the verdict of `rule`."""

    def reply(body: Mapping[str, Any]) -> Any:
        if is_probe(body):
            return plausible_reply(body)
        # a reply that breaks the schema is asked for once more, with a complaint behind
        asked = [m["content"] for m in body["messages"] if m["content"].startswith("Instruction:")]
        return {"verdict": next(v for a, v in rule.items() if f"Answer: {a}\n" in asked[-1])}

    return reply


def test_each_item_gets_its_verdict_and_two_passes_agree(tmp_path: Path) -> None:
    rule = {"yes": "faithful", "no": "unfaithful", "well": "vague"}
    with ScriptedEndpoint(says(rule)) as endpoint:
        found = ask(tmp_path, endpoint, ["yes", "no", "well", "no"])
        assert len(endpoint.work) == 6  # two passes over three distinct items
        again = ask(tmp_path, endpoint, ["yes", "no", "well", "no"])
        assert len(endpoint.work) == 6
    assert [item.verdict for item in found.items] == [
        "faithful",
        "unfaithful",
        "vague",
        "unfaithful",
    ]
    assert all(item.agreed for item in found.items)
    assert found.shares() == {"faithful": 0.25, "vague": 0.25, "unfaithful": 0.5}
    assert found.agreement == Agreement(n=4, raw=1.0, kappa=1.0)
    assert again == found
    assert found.summary().to_json()["digest"] == RUBRIC.digest


def test_a_judge_that_takes_what_is_listed_first_disagrees_with_itself(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:  # its replies take the first of an enum
        found = ask(tmp_path, endpoint, ["a", "b", "c"])
    assert {item.verdicts for item in found.items} == {("faithful", "unfaithful")}
    assert found.agreement == Agreement(n=3, raw=0.0, kappa=0.0)
    assert not any(item.agreed for item in found.items)


def test_a_reply_without_a_verdict_is_counted_and_takes_no_part(tmp_path: Path) -> None:
    rule = {"yes": "faithful", "no": "perhaps"}
    with ScriptedEndpoint(says(rule)) as endpoint:
        found = ask(tmp_path, endpoint, ["yes", "no"])
    assert [item.verdict for item in found.items] == ["faithful", None]
    assert found.unread == 1
    assert found.shares()["faithful"] == 1.0
    assert found.agreement == Agreement(n=1, raw=1.0, kappa=None)


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        none = ask(tmp_path, endpoint, [])
    assert (none.items, none.shares(), none.agreement) == ((), {}, None)


def test_kappa_is_cohens() -> None:
    # the textbook's table: both yes 20, both no 15, yes/no 5, no/yes 10
    pairs = [("y", "y")] * 20 + [("n", "n")] * 15 + [("y", "n")] * 5 + [("n", "y")] * 10
    found = agreement([a for a, _ in pairs], [b for _, b in pairs])
    assert (found.n, found.raw) == (50, 0.7)
    assert found.kappa == pytest.approx(0.4)
    assert agreement(["y", "y"], ["y", "y"]).kappa is None
    assert agreement([None], ["y"]) == Agreement(n=0, raw=None, kappa=None)


@pytest.mark.parametrize("name", ["judge_answer", "judge_completion"])
def test_the_packaged_rubrics_show_every_verdict(name: str) -> None:
    texts = PromptFiles()
    rubric = rubric_named(texts, name)
    prompt = texts.prompt(name)
    assert {reply["verdict"] for reply in prompt.few_shot} == set(rubric.verdicts)
    assert all(f'"{verdict}"' in prompt.system for verdict in rubric.verdicts)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[faithful, vague, unfaithful]", "[faithful]", "of the prompt that it replaces"),
        ("{{verdicts}}", "these", "{{verdicts}} is missing"),
        ("verdict: {type: string", "said: {type: string", "of the prompt that it replaces"),
    ],
)
def test_what_is_no_rubric_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    packaged = Path(__file__).parents[3] / "generators/prompts/judge_answer.yaml"
    head, _, rest = packaged.read_text().partition("examples:")
    text = f"{head}examples: []{rest[rest.index(chr(10) + 'reply:') :]}"
    (tmp_path / packaged.name).write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        rubric_named(PromptFiles(prompts=tmp_path), "judge_answer")
