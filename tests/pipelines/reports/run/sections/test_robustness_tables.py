"""What changes cost a decoder, as Markdown."""

from __future__ import annotations

from typing import Any

from evaluators.measure.metrics import RobustnessMetrics
from pipelines.reports.run.sections.robustness import robustness_tables


def leaf(estimate: float, width: float | None = 0.25) -> dict[str, Any]:
    low, high = (None, None) if width is None else (estimate - width, estimate + width)
    return {"estimate": estimate, "low": low, "high": high, "n": 9}


SIDES = {
    "right": {"plain": leaf(1.0), "altered": leaf(1.5), "drop": leaf(0.5)},
    "none_minus_right": {"plain": leaf(2.0), "altered": leaf(1.25), "drop": leaf(0.75)},
    "excluded": {},
}
FOUND: dict[str, Any] = {
    "views": {
        "test": {
            "control": {
                "decoy": {
                    **SIDES,
                    "own_answer": {"plain": leaf(1.0), "altered": leaf(0.5), "drop": leaf(0.5)},
                },
                "shift:2": {**SIDES, "moved": 0.125, "out_of_distribution": 0.75},
            }
        }
    },
    "held_out": {
        "control": {
            name: {"test": leaf(1.0), "test_ood": leaf(2.0, None), "drop": leaf(1.0, None)}
            for name in ("right", "none_minus_right")
        }
    },
    "fine_tune": {"losses": [3.0, 2.0]},
}


def tables(found: dict[str, Any]) -> list[str]:
    return robustness_tables(RobustnessMetrics.model_validate(found)).split("\n\n")


def test_a_change_has_its_drop_and_a_fine_tune_how_far_it_went() -> None:
    changes, _ = tables(FOUND)
    _, _, decoy, shift = changes.splitlines()
    numbers = (
        "| 9 | 1.00 [0.75, 1.25] | 1.50 [1.25, 1.75] | 0.50 [0.25, 0.75] "
        "| 1.25 [1.00, 1.50] | 0.75 [0.50, 1.00] |"
    )
    assert decoy == (
        f"| test | control | another control quoted {numbers} "
        "1.00 [0.75, 1.25] | 0.50 [0.25, 0.75] | – | – | 0 |"
    )
    assert shift == (
        f"| test | control | target fine-tuned, strength 2 {numbers} – | – | 12 % | 75 % | 0 |"
    )


def test_held_out_categories_have_a_table_where_both_splits_were_judged() -> None:
    _, kept = tables(FOUND)
    assert kept.splitlines()[-2] == "| control | right | 1.00 [0.75, 1.25] | 2.00 | 1.00 |"
    assert len(tables({**FOUND, "held_out": {}})) == 1
