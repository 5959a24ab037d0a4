"""Groups of an evaluation as tables: which question is read, and which is not."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluators.breakdowns import panel_by_group
from evaluators.config import EvaluateConfig
from pipelines.reports.run.sections.groups import group_tables, markdown_groups

CONFIG = EvaluateConfig(bootstrap=200)
QUESTIONS = ["Which form?", "Which persona?"]


def tree(controls: int = 10) -> Any:
    """Measure a split and view in which the form is read and the persona is not."""
    names = np.repeat([f"control {i:02}" for i in range(controls)], 2)
    noise = np.random.default_rng(0).normal(0, 0.02, len(names))
    costs = {"right": (0.1, 0.35), "swapped": (0.6, 0.35), "prior": (0.4, 0.3), "other": (1.0, 1.0)}
    costs |= dict.fromkeys(("untrained_right", "untrained_other"), (2.0, 2.0))
    losses = {name: np.tile(own, controls) + noise for name, own in costs.items()}
    losses["swapped"] = losses["swapped"] + np.roll(noise, 1)
    labels: dict[str, list[str | None]] = {
        "kind": ["instruction"] * len(names),
        "question": [*QUESTIONS] * controls,
    }
    return {"test": {"system": panel_by_group(losses, names, labels, CONFIG)}}


def test_a_table_says_that_one_question_is_read_and_the_other_is_not() -> None:
    text = markdown_groups(tree())
    head, _, form, persona = text.splitlines()[2:6]
    assert head.startswith("| split | view | group | n | right | swapped | prior | hidden gain |")
    assert form.startswith("| test | system | question: Which form? | 10 | 0.09 [")
    assert form.endswith("| yes |")
    assert persona.endswith("| not shown |")
    assert "kind: instruction" not in text
    (table,) = group_tables(tree())
    assert table.by_question == (
        "By question: shown for “Which form?”; not shown for “Which persona?”."
    )


def test_few_controls_give_no_verdict() -> None:
    text = markdown_groups(tree(5))
    assert text.splitlines()[4].endswith("| – |")
    assert group_tables(tree(5))[0].by_question == ""
