"""The code of docs/generation.md runs, and its YAML is valid."""

import re
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from endpoints import REASONS

from core.records.table_files import read_questions
from generators.kinds import KINDS
from generators.kinds.config import KindPlan
from generators.llm.endpoint.config import EndpointConfig
from generators.llm.endpoint.prices import Price, price_of
from generators.llm.prompt_files import PromptFiles
from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig, GenerateSection, QuestionsConfig
from generators.making.generation import generate_conversations, generate_questions

TEXT = (Path(__file__).parents[3] / "docs/generation.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
YAML = [yaml.safe_load(code) for language, code in BLOCKS if language == "yaml"]
SECTIONS = [block for block in YAML if "generate" in block]
PRICES = [block for block in YAML if "generate" not in block]
CODE = [code for language, code in BLOCKS if language == "python"]


@pytest.mark.parametrize("block", SECTIONS)
def test_every_section_shown_is_valid(block: dict[str, Any]) -> None:
    GenerateSection.model_validate(block["generate"])


def test_the_prices_shown_are_read(tmp_path: Path) -> None:
    (block,) = PRICES
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(block))
    model, host = block
    config = EndpointConfig(model=model, prices=str(tmp_path / "prices.yaml"), budget_usd=1)
    assert price_of(config) == Price(**block[model])
    (named,) = block[host]
    config = EndpointConfig(
        model=named, base_url=f"https://{host}/api/v1", prices=str(tmp_path / "prices.yaml")
    )
    assert price_of(config) == Price(**block[host][named])


def test_the_kind_shown_makes_controls_and_questions() -> None:
    names: dict[str, Any] = {}
    exec(CODE[0], names)
    kind = names["Mood"]()
    control = kind.control("gloomy", {"cause": "it rains."}, Random(0))
    assert control == "From now on, be gloomy, because it rains."
    asks = list(islice(kind.questions("description", control, PromptFiles(), Random(0)), 3))
    assert {question for ask in asks for question in ask.questions.values()} == set(
        names["QUESTIONS"]
    )


def test_the_drawn_kind_shown_makes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(CODE[1], names)
    monkeypatch.setitem(KINDS, "store", names["Store"]())
    for work, config in (
        (
            partial(generate_conversations, tmp_path),
            ConversationsConfig(kinds={"store": KindPlan(controls=3)}),
        ),
        (partial(generate_questions, tmp_path, tmp_path / "q"), QuestionsConfig()),
    ):
        work(LLMSession(log=tmp_path / "log"), config=config)
    asked = read_questions(tmp_path / "q/questions.parquet")
    assert [question.question for question in asked] == [
        f"Where is {thing}?" for thing in names["THINGS"][:3]
    ]
    assert {question.answer for question in asked} <= {f"In {p}." for p in names["PLACES"]}


def test_every_grade_of_a_profile_is_shown() -> None:
    assert set(KINDS["profile"].types) <= set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))


def test_the_scripted_example_runs() -> None:
    exec(CODE[2], {})


def test_every_reason_is_explained() -> None:
    table = set(re.findall(r"\w+", " ".join(re.findall(r"^\| ([\w, ]+) \|", TEXT, re.MULTILINE))))
    assert table >= REASONS
