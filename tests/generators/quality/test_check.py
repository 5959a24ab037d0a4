"""Flags by rules, what an LLM thinks of a sample, and what is dropped of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from endpoints import resolved
from scripted_endpoint import ScriptedEndpoint
from table_rows import conversation

from core.errors import ConfigError, DataError
from core.records.estimate import Estimate
from core.records.table_files import (
    read_conversations,
    read_dropped,
    read_questions,
    write_conversations,
    write_questions,
)
from core.records.tables import Conversation, Message, Question, control_id, example_id
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe, plausible_reply, schema_of
from generators.quality.answerability import (
    answerability,
    mean_over_controls,
    sample_items,
    token_f1,
)
from generators.quality.check import check_quality
from generators.quality.config import FLAGS, QualityConfig, RulesConfig
from generators.quality.describe import describe_dataset
from generators.quality.flags import apply_flags, flag_rows

Row = tuple[Conversation, list[Question]]


def row(
    control: str,
    asked: Sequence[tuple[str, str]] = (("What is the assistant?", "It is a ferryman."),),
    stimulus: str | None = None,
    completion: str | None = None,
    **changes: Any,
) -> Row:
    said = [Message(role="user", content=control, segment="control")]
    if stimulus is not None:
        said.append(Message(role="user", content=stimulus, segment="stimulus"))
    if completion is not None:
        said.append(Message(role="assistant", content=completion, segment="completion"))
    view = "control" if len(said) == 1 else "stimulus" if len(said) == 2 else "stimulus_completion"
    label = changes.pop("label", f"persona-x-{control[:12]}")
    own = example_id(label, view, said)  # type: ignore[arg-type]
    made = conversation(
        example_id=own,
        control_id=control_id("persona", control),
        group_id=label,
        category="x",
        label=label,
        view=view,
        source="test",
        messages=tuple(said),
        **changes,
    )
    questions = [
        Question(example_id=own, question=q, answer=a, type="description") for q, a in asked
    ]
    return made, questions


def tables(rows: Sequence[Row]) -> tuple[list[Conversation], list[Question]]:
    return [one for one, _ in rows], [q for _, own in rows for q in own]


def reasons(rows: Sequence[Row], **rules: Any) -> dict[str, int]:
    found = flag_rows(*tables(rows), RulesConfig(**rules)).count(len(rows))
    return {flag: own.rows for flag, own in found.flags.items()}


FERRY = "Be a ferryman who hums old songs and mistrusts every bridge that he has ever seen."


@pytest.mark.parametrize(
    ("flag", "rows", "rules"),
    [
        ("near_duplicate", [row(FERRY), row(FERRY + " Ha.", label="persona-y-b")], {}),
        ("gives_control_away", [row(FERRY, stimulus="Do you know old songs about a bridge?")], {}),
        ("refusal", [row(FERRY, stimulus="Hi", completion="I'm sorry, I cannot do that.")], {}),
        ("refusal", [row(FERRY, [("Who?", "I can't answer this, ferryman.")])], {}),
        ("repeats_itself", [row(FERRY, [("Who?", "a ferryman " * 20)])], {}),
        ("too_long", [row(FERRY)], {"longest": 40}),
        ("repeated_question", [row(FERRY, [("Who?", "A ferryman."), ("who?", "A man, old.")])], {}),
        ("unsupported", [row(FERRY, [("Who?", "Somebody quite friendly.")])], {}),
        ("answer_in_question", [row(FERRY, [("Is he a ferryman?", "A ferryman.")])], {}),
    ],
)
def test_each_rule_flags_its_fault_and_nothing_else_does(
    flag: str, rows: list[Row], rules: dict[str, Any]
) -> None:
    assert reasons(rows, **rules) == {flag: 1}
    assert reasons([row(FERRY)]) == {}


def test_drawn_kinds_are_spared_the_rules_for_what_an_llm_writes() -> None:
    asked = [("Who is older, Marta or Oskar?", "Marta is older.")]
    assert reasons([row(FERRY, asked)]) != {}
    assert reasons([row(FERRY, asked, kind="profile")]) == {}


def test_a_control_in_several_views_is_no_duplicate_of_itself() -> None:
    assert reasons([row(FERRY), row(FERRY, stimulus="Hi there")]) == {}


def test_only_the_first_controls_are_compared_where_that_is_asked() -> None:
    rows = [row(f"{FERRY} {i}.", label=f"persona-x-{i}") for i in range(4)]
    found = flag_rows(*tables(rows), RulesConfig(most_compared=2)).count(len(rows))
    assert (found.compared, found.flags["near_duplicate"].rows) == (2, 1)
    assert flag_rows(*tables(rows), RulesConfig(most_compared=0)).compared == 0


def test_flags_stand_with_their_rows_and_drop_what_the_config_says() -> None:
    rows = [
        row(FERRY, [("Who?", "A ferryman."), ("Why?", "Nobody can tell.")]),
        row("Be a baker.", stimulus="Which baker is near?"),
    ]
    conversations, questions = tables(rows)
    flags = flag_rows(conversations, questions, RulesConfig())
    marked, kept, dropped = apply_flags(conversations, questions, flags, ())
    assert [one.flags for one in marked] == [(), ("gives_control_away",)]
    assert [one.flags for one in kept] == [(), ("unsupported",), ("unsupported",)]
    assert dropped == []
    marked, kept, dropped = apply_flags(
        conversations, questions, flags, ("unsupported", "gives_control_away")
    )
    assert len(marked) == 2
    assert [one.answer for one in kept] == ["A ferryman."]
    assert {one.reason for one in dropped} <= {"unsupported", "gives_control_away"}
    assert dropped[0].raw == "Why? | Nobody can tell."


def test_stats_tell_the_checks_and_what_controls_share() -> None:
    rows = [row(FERRY), row("Be a baker of bread.", [("What is the assistant?", "A baker.")])]
    numbers = describe_dataset(*tables(rows))
    assert numbers["shared"] == {"question": 1.0, "answer": 0.0}
    assert numbers["per_control"] == {"min": 1, "median": 1, "max": 1}
    assert numbers["checks"] == {"flags": {}, "examples": {}, "compared": 2}


# ------------------------------------------------------------------------------- with an LLM

COLOURS = ("amber", "coral", "ivory", "jasper", "maple", "pewter")


def coloured() -> list[Row]:
    """Return controls about a colour; the question of every second one tells its answer."""
    made = []
    for number, colour in enumerate(COLOURS):
        question = f"Does it love {colour}?" if number % 2 else "What does the assistant love?"
        for extra in ({}, {"stimulus": "Hello there", "completion": f"I love {colour}!"}):
            made.append(
                row(f"Love {colour}.", [(question, f"The assistant loves {colour}.")], **extra)
            )
    return made


def model(body: Mapping[str, Any]) -> Any:
    """Guesses a colour that the question names; judges by whether control and text share one."""
    if is_probe(body):
        return plausible_reply(body)
    said = body["messages"][-1]["content"]
    if "answer" in schema_of(body)["properties"]:  # type: ignore[index]
        known = next((colour for colour in COLOURS if colour in said), "nothing")
        return {"answer": f"The assistant loves {known}."}
    first, rest = said.split("\n", 1)
    same = any(colour in first and colour in rest for colour in COLOURS)
    return {"verdict": "faithful" if same else "unfaithful"}


def check(folder: Path, rows: Sequence[Row], **config: Any) -> dict[str, Any]:
    write_conversations(folder / "c/conversations.parquet", [one for one, _ in rows])
    write_questions(folder / "q/questions.parquet", [q for _, own in rows for q in own])
    with ScriptedEndpoint(model) as endpoint:
        counts = check_quality(
            folder / "c",
            folder / "q",
            folder / "out",
            LLMSession(log=folder / "log.sqlite", endpoint=resolved(endpoint)),
            config=QualityConfig.model_validate(config),
        )
        counts["asked"] = len(endpoint.work)
    return counts


def test_what_is_answerable_without_activations_is_measured_and_flagged(tmp_path: Path) -> None:
    counts = check(tmp_path, coloured(), faithfulness=False, answerable=0.9)
    found = counts["quality"]["answerability"]
    assert found["all"]["own"]["n"] == 6
    assert found["all"]["answerable"]["estimate"] == 0.5
    assert found["all"]["above"]["estimate"] == pytest.approx(
        0.125
    )  # one word of four, half the time
    assert found["by_type"]["persona/description"] == found["all"]
    assert counts["asked"] == 4  # three questions that tell, and one that the others share
    flags = [q.flags for q in read_questions(tmp_path / "out/questions.parquet")]
    told = ("answer_in_question", "answerable")
    assert flags == [(), (), told, told] * 3  # in both views
    assert counts["quality"]["flags"]["answerable"]["rows"] == 6


def test_faithfulness_is_judged_twice_and_the_judge_is_put_to_the_test(tmp_path: Path) -> None:
    rows = coloured()
    rows[0] = row("Love amber.", [("What does the assistant love?", "The assistant loves tin.")])
    rows[3] = row("Love coral.", [], stimulus="Hi", completion="I love lead, I do.")
    counts = check(tmp_path, rows, answerability=False)
    answers = counts["quality"]["faithfulness"]["answers"]
    assert answers["own"]["shares"]["unfaithful"] == pytest.approx(1 / 7)
    assert answers["own"]["agreement"] == {"n": 7, "raw": 1.0, "kappa": 1.0}
    assert answers["swapped"]["shares"]["faithful"] == 0.0
    completions = counts["quality"]["faithfulness"]["completions"]
    assert completions["own"]["shares"]["unfaithful"] == pytest.approx(1 / 6)
    assert completions["swapped"]["shares"]["faithful"] == 0.0
    flags = {one.flags for one in read_conversations(tmp_path / "out/conversations.parquet")}
    assert flags == {(), ("unfaithful_completion",)}
    assert counts["quality"]["flags"]["unfaithful_answer"]["rows"] == 1


def test_what_the_config_says_is_dropped_with_its_reason(tmp_path: Path) -> None:
    counts = check(tmp_path, coloured(), faithfulness=False, answerable=0.9, drop=["answerable"])
    assert counts["questions"] == 6
    assert counts["dropped"] == {"answerable": 6}
    assert len(read_conversations(tmp_path / "out/conversations.parquet")) == 12
    dropped = read_dropped(tmp_path / "out/dropped.parquet")
    assert {one.reason for one in dropped} == {"answerable"}
    written = json.loads((tmp_path / "out/quality.json").read_text())
    assert written == counts["quality"]
    with pytest.raises(DataError, match=r"no question is left of 12; dropped by .*too_long"):
        check(tmp_path, coloured(), drop=["answerable", "too_long"], rules={"longest": 3})


def test_a_second_check_asks_nothing_and_a_larger_one_only_the_rest(tmp_path: Path) -> None:
    first = check(tmp_path, coloured(), sample=2)
    again = check(tmp_path, coloured(), sample=2)
    assert again["asked"] == again["requests"] == 0
    assert again["quality"] == first["quality"]
    more = check(tmp_path, coloured(), sample=4)
    assert more["cached_requests"] > 0
    assert more["asked"] > 0


def test_without_measurements_no_llm_is_needed(tmp_path: Path) -> None:
    counts = check(tmp_path, coloured(), answerability=False, faithfulness=False)
    assert counts["asked"] == 0
    assert counts["quality"]["answerability"] is counts["quality"]["faithfulness"] is None
    with pytest.raises(ConfigError, match=r"quality\.endpoint: got none; answer_alone, judge"):
        check_quality(
            tmp_path / "c",
            tmp_path / "q",
            tmp_path / "out",
            LLMSession(log=tmp_path / "log"),
            config=QualityConfig(),
        )


def test_a_larger_sample_begins_with_the_smaller_one_and_takes_controls_by_turns() -> None:
    rows = [
        row(f"Love {c}.", [("Q1?", f"A {c}."), ("Q2?", f"B {c}.")], **extra)
        for c in COLOURS
        for extra in ({}, {"stimulus": "Hi"})
    ]
    few, all_ = (sample_items(*tables(rows), n, 0) for n in (6, None))
    assert [one.key for one in few] == [one.key for one in all_[:6]]
    assert len({one.control_id for one in few}) == 6
    assert len(all_) == 12
    assert all(one.other_control not in (None, one.control) for one in all_)
    assert sample_items(*tables(rows[:1]), None, 0)[0].other_control is None


def test_token_f1_and_means_over_controls() -> None:
    assert token_f1("the red fox", "the red hen") == pytest.approx(2 / 3)
    assert token_f1("", "x") == 0.0
    assert mean_over_controls({}, 0) == Estimate()
    assert mean_over_controls({"a": [0.0, 1.0]}, 0) == Estimate(estimate=0.5, n=1)
    found = mean_over_controls({"a": [0.0], "b": [1.0], "c": [0.5, 0.5]}, 0)
    assert found.low is not None
    assert found.high is not None
    assert found.estimate == 0.5
    assert found.low < found.estimate < found.high
    assert answerability([], [], 0.5, 0).all.own.n == 0


def test_every_flag_is_explained() -> None:
    text = (Path(__file__).parents[3] / "docs/data.md").read_text()
    assert [flag for flag in FLAGS if f"`{flag}`" not in text] == []
