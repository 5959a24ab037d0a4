"""Gains of planted losses: what a claim of reading may rest on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evaluators.config import EvaluateConfig
from evaluators.measure.panel import UNTRAINED, measure_panel

CONTROLS = np.repeat([f"control {i:02}" for i in range(24)], 3)
CONFIG = EvaluateConfig(bootstrap=1000)
NAMES = ("right", "other", "mean", "none", "untrained_right", "untrained_other")


def planted(**shifts: float) -> dict[str, np.ndarray]:
    """Losses of a common hardness, each condition shifted, with noise of its own."""
    random = np.random.default_rng(0)
    hardness = 3 + random.normal(0, 1, len(CONTROLS))
    return {
        name: hardness + shifts.get(name, 0.0) + random.normal(0, 0.2, len(CONTROLS))
        for name in NAMES
    }


def measure(losses: dict[str, np.ndarray], controls: np.ndarray = CONTROLS) -> dict[str, Any]:
    return measure_panel(losses, controls, CONFIG).to_json()


def judge(**shifts: float) -> dict[str, Any]:
    return measure(planted(**shifts))


def holds_zero(leaf: dict[str, float]) -> bool:
    return leaf["low"] <= 0 <= leaf["high"]


def test_the_panel_has_the_documented_shape() -> None:
    found = judge()
    assert set(found) == {
        "answer_loss",
        "untrained",
        "grounded_gain",
        "information_gain",
        "below_untrained",
        "best_uninformed",
    }
    assert set(found["answer_loss"]) == {"right", "other", "mean", "none"}
    assert set(found["untrained"]) == {"right", "other"}
    for leaf in (*found["answer_loss"].values(), found["grounded_gain"]):
        assert set(leaf) == {"estimate", "low", "high", "n"}
        assert leaf["n"] == 24


def test_losses_are_means_over_controls() -> None:
    losses = planted()
    found = measure(losses)["answer_loss"]["right"]["estimate"]
    assert found == pytest.approx(losses["right"].mean())


def test_a_decoder_that_ignores_activations_gains_nothing() -> None:
    found = judge(untrained_right=2.0, untrained_other=2.0)
    assert holds_zero(found["grounded_gain"])
    assert holds_zero(found["information_gain"])
    assert found["below_untrained"]["low"] > 1


def test_a_decoder_for_which_all_conditions_are_one_gains_exactly_nothing() -> None:
    same = dict.fromkeys(NAMES, planted()["right"])
    found = measure(same)
    nothing = {"estimate": 0.0, "low": 0.0, "high": 0.0, "n": 24}
    assert found["grounded_gain"] == found["information_gain"] == nothing


def test_overconfidence_on_wrong_activations_is_no_information() -> None:
    found = judge(other=2.0)
    assert found["grounded_gain"]["low"] > 1.5
    assert holds_zero(found["information_gain"])
    assert found["best_uninformed"] in ("mean", "none")


def test_a_perfect_decoder_gains_both() -> None:
    losses = planted(other=1.0, mean=1.5, none=2.0, untrained_right=1.0)
    losses["right"] = np.full(len(CONTROLS), 0.01)
    found = measure(losses)
    assert found["grounded_gain"]["low"] > 2
    assert found["information_gain"]["low"] > 2
    assert found["best_uninformed"] == "other"
    assert found["below_untrained"]["low"] > 2


def test_a_decoder_that_got_worse_shows_it_against_the_untrained() -> None:
    assert judge(untrained_right=-1.0, other=2.0)["below_untrained"]["high"] < 0


def test_noise_is_no_rival_of_the_information_gain() -> None:
    losses = {**planted(), "noise": planted()["right"] - 5}
    assert holds_zero(measure(losses)["information_gain"])


def test_the_best_rival_is_chosen_anew_in_each_sample() -> None:
    # `other` fails on one half of the controls and `mean` on the other half: a rival that is fixed
    # beats `right` in half of the samples, the better of the two in none
    half = np.repeat(np.arange(24) % 2 * 2.0, 3)
    losses = {**planted(), "right": np.ones(72), "none": np.full(72, 9.0)}
    losses |= {"other": half, "mean": 2 - half}
    found = measure(losses)["information_gain"]
    assert found["estimate"] == 0
    assert found["low"] < -0.05
    # of two that undo each other one is above zero in every sample: both must hold at once
    assert found["high"] > 0.05


def planted_hidden(loss: Callable[[str, np.ndarray], np.ndarray], **more: bool) -> dict[str, Any]:
    """Measure the panel of a decoder whose losses follow from condition and a draw."""
    draw = np.random.default_rng(3)
    names = ["right", "swapped", "shifted_positions", "other", "mean", "none", *UNTRAINED, *more]
    noise = draw.normal(size=(40,))
    losses = {name: loss(name, noise) + 0.02 * draw.normal(size=40) for name in names}
    controls = np.array([f"c{i // 2:02}" for i in range(40)])
    config = EvaluateConfig(bootstrap=500)
    return measure_panel(losses, controls, config, np.full(40, 5)).to_json()


def test_a_decoder_that_reads_visible_text_alone_has_no_hidden_gain() -> None:
    # another control's row has other visible text, and costs more; the swapped row has its own
    found = planted_hidden(lambda name, noise: 2 + 0.3 * noise + (name == "other"))
    assert found["grounded_gain"]["low"] > 0
    assert found["hidden_gain"]["low"] <= 0 <= found["hidden_gain"]["high"]


def test_a_decoder_that_reads_the_position_is_exposed() -> None:
    found = planted_hidden(lambda name, noise: 2 + 0.3 * noise + (name == "shifted_positions"))
    assert found["hidden_gain"]["low"] <= 0 <= found["hidden_gain"]["high"]
    assert found["position_effect"]["low"] > 0.5


def test_a_decoder_that_reads_what_is_hidden_has_a_hidden_gain() -> None:
    found = planted_hidden(lambda name, noise: 2 + 0.3 * noise + 0.5 * (name != "right"))
    assert found["hidden_gain"]["low"] > 0.4
    assert found["hidden_gain_per_answer"]["estimate"] == pytest.approx(
        5 * found["hidden_gain"]["estimate"]
    )


def test_rivals_and_ceiling_say_what_share_is_recovered() -> None:
    cost = {"right": 1.0, "prior": 2.0, "visible_text": 1.8, "text": 0.2}
    found = planted_hidden(
        lambda name, noise: cost.get(name, 2.5) + 0 * noise,
        prior=True,
        visible_text=True,
        text=True,
    )
    assert found["below_rivals"]["estimate"] == pytest.approx(0.8, abs=0.05)
    assert found["share_recovered"]["estimate"] == pytest.approx(0.5, abs=0.05)


def test_without_rivals_nothing_is_said_of_them() -> None:
    found = planted_hidden(lambda name, noise: 2 + noise)
    assert {"below_rivals", "share_recovered"}.isdisjoint(found)
