"""Simulated losses of which the true gains are known, and how often intervals hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.measure.panel import measure_panel

GAIN = 0.5
"""True gain of a decoder that reads, in nats a token."""


@dataclass(frozen=True)
class Scenario:
    """What a simulated decoder does.

    Attributes:
        gain: true gain over the best rival.
        beyond: what each rival costs beyond the best one.
        noise: of each rival's loss, besides what all conditions share.
    """

    gain: float
    beyond: tuple[float, ...] = (0.0, 0.0, 0.0)
    noise: tuple[float, ...] = (0.2, 0.2, 0.2, 0.2)


SCENES = {
    "reads, one rival is best": Scenario(GAIN, (0.0, 0.3, 0.4)),
    "reads, rivals alike": Scenario(GAIN),
    "ignores activations, rivals alike": Scenario(0.0),
    "ignores activations, four rivals alike": Scenario(0.0, (0.0, 0.0, 0.0, 0.0)),
    "ignores activations, two rivals alike": Scenario(0.0, (0.0, 0.0, 0.4)),
    "ignores activations, one rival noisy": Scenario(0.0, noise=(0.2, 0.2, 1.0)),
    "ignores activations, rivals nearly alike": Scenario(0.0, (0.0, 0.06, 0.06)),
}
"""Name of each scene."""
RIVALS = ("other", "mean", "none", "prior")
GAINS = ("grounded_gain", "information_gain")


def losses(random: np.random.Generator, controls: int, scene: str) -> dict[str, np.ndarray]:
    """Mean losses of the controls of one dataset by condition.

    Controls are hard or easy alike under all conditions, and skewed; a decoder that reads gains
    little on most controls and much on a few; each condition has noise of its own.
    """
    own = SCENES[scene]
    hardness = random.gamma(4, 0.5, controls)

    def noise(spread: float = 0.2) -> np.ndarray:
        return random.normal(0, spread, controls)

    found = {"right": hardness - random.gamma(2, 0.5, controls) * own.gain + noise()}
    for name, more, spread in zip(RIVALS, own.beyond, own.noise, strict=False):
        found[name] = hardness + more + noise(spread)
    return {**found, "untrained_right": hardness + noise(), "untrained_other": hardness + noise()}


@dataclass(frozen=True)
class Coverage:
    """How 95 % intervals stand to the true gain: shares of the simulated datasets."""

    holds: float
    too_high: float
    """The whole interval is above it: a gain is claimed that is not there."""


def coverage(
    scene: str, controls: int, *, datasets: int, samples: int, seed: int
) -> dict[str, Coverage]:
    """Coverage of both gains."""
    random = np.random.default_rng(seed)
    names = np.array([f"{i:03}" for i in range(controls)])
    truth = SCENES[scene].gain
    held, high = dict.fromkeys(GAINS, 0), dict.fromkeys(GAINS, 0)
    for dataset in range(datasets):
        config = EvaluateConfig(bootstrap=samples, seed=dataset)
        found = measure_panel(losses(random, controls, scene), names, config).to_json()
        for name in GAINS:
            held[name] += found[name]["low"] <= truth <= found[name]["high"]
            high[name] += found[name]["low"] > truth
    return {name: Coverage(held[name] / datasets, high[name] / datasets) for name in GAINS}
