"""Controls that code can check: combinations of attributes, and balanced questions about them."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from math import prod
from pathlib import Path
from random import Random

import pytest
import yaml
from table_rows import conversation

from core.errors import ConfigError
from core.records.tables import Conversation
from generators.kinds import instruction
from generators.kinds.base import DrawnControl
from generators.kinds.instruction import Instruction, instruction_seeds
from generators.llm.prompt_files import PromptFiles
from generators.rules.obedience import obeys

KIND, TEXTS = Instruction(), PromptFiles()
PACKAGED = Path(instruction.__file__).parents[1] / "seeds" / "instruction.yaml"


def controls(count: int | None = None, seed: int = 0) -> list[DrawnControl]:
    return [
        c for c in islice(KIND.controls(seed, TEXTS, None), count) if isinstance(c, DrawnControl)
    ]


def row(control: DrawnControl) -> Conversation:
    return conversation(view="system", provenance={"facts": dict(control.facts)})


def test_every_combination_is_drawn_once() -> None:
    found = controls()
    seeds = instruction_seeds(TEXTS)
    sizes = {name: len(own.values) for name, own in seeds.attributes.items()}
    assert len({c.text for c in found}) == len(found)
    assert len(found) == sum(prod(sizes[name] for name in order) for order in seeds.all_orders)


def test_categories_take_turns_and_a_larger_plan_begins_with_a_smaller_one() -> None:
    few, many = controls(26), controls(60)
    assert many[:26] == few
    first = ("+".join(order) for order in instruction_seeds(TEXTS).orders)
    assert Counter(c.category for c in few) == dict.fromkeys(first, 2)


def test_later_orders_change_no_earlier_control(tmp_path: Path) -> None:
    packaged = yaml.safe_load(PACKAGED.read_text())
    later = packaged.pop("later_orders")
    (tmp_path / "instruction.yaml").write_text(yaml.safe_dump(packaged, sort_keys=False))
    without = list(KIND.controls(0, PromptFiles(seeds=tmp_path), None))
    whole = controls()
    assert whole[: len(without)] == without
    assert {c.category for c in whole[len(without) :]} == {"+".join(order) for order in later}


def test_every_value_has_a_check_that_runs() -> None:
    for control in controls():
        for check in control.facts["checks"].values():
            assert obeys("", check) in (True, False)


def test_descriptions_name_each_value() -> None:
    (control,) = controls(1)
    asked = list(KIND.questions("description", row(control), TEXTS, Random(0)))
    values = list(control.facts["values"].values())
    assert sorted(v for v in values for a in asked if v in a.answer) == sorted(values)


def test_yes_no_gold_is_balanced_and_right() -> None:
    golds: Counter[str] = Counter()
    for number, control in enumerate(controls(60)):
        values = list(control.facts["values"].values())
        asked = list(KIND.questions("yes_no", row(control), TEXTS, Random(number)))
        assert len({a.question for a in asked}) == len(asked) == 2 * len(values)
        for answered in asked:
            named = any(value in answered.question for value in values)
            assert answered.answer == ("Yes." if named else "No.")
            golds[answered.answer] += 1
    assert golds["Yes."] == golds["No."]


def test_a_value_without_a_check_is_one_line(tmp_path: Path) -> None:
    text = """
attributes:
  a: {control: "{value}", question: q, answer: a, yes_no: y, values: [{value: x}, {value: y}]}
orders: [[a]]
"""
    (tmp_path / "instruction.yaml").write_text(text)
    with pytest.raises(
        ConfigError, match=r"instruction.yaml: attributes.a.values.0: .*exactly one"
    ):
        instruction_seeds(PromptFiles(seeds=tmp_path))
