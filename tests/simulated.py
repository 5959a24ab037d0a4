"""Simulated losses of which the true gains are known, and how often intervals hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.identification.identify import measure_identification
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
    """Measure the coverage of both gains."""
    random = np.random.default_rng(seed)
    names = np.array([f"{i:03}" for i in range(controls)])

    def estimates(config: EvaluateConfig) -> dict[str, dict[str, float]]:
        return measure_panel(losses(random, controls, scene), names, config).to_json()

    truths = dict.fromkeys(GAINS, SCENES[scene].gain)
    return _count(truths, estimates, datasets=datasets, samples=samples)


@dataclass(frozen=True)
class HiddenScenario:
    """What a simulated decoder does in a masked view.

    Attributes:
        gain: true hidden gain.
        rivals: true loss of `prior` and of `visible_text`, less that of `right`.
    """

    gain: float
    rivals: tuple[float, float]


HIDDEN_SCENES = {
    "reads, rivals apart": HiddenScenario(GAIN, (0.2, 0.4)),
    "reads, rivals alike": HiddenScenario(GAIN, (0.2, 0.2)),
    "reads, rivals nearly alike": HiddenScenario(GAIN, (0.2, 0.25)),
    "reads nothing, rivals alike": HiddenScenario(0.0, (0.0, 0.0)),
}
CLOSED_SCENES = {
    "nearly all found": ((9.0, 1.0), (1.0, 3.0)),
    "some found": ((3.0, 2.0), (1.0, 3.0)),
    "at chance": ((1.0, 2.0), (1.0, 2.0)),
}
"""Parameters of the Beta distribution of accuracy over controls, given `right` and `swapped`."""
ITEMS = 4
"""Closed items of a control."""


def hidden_losses(
    random: np.random.Generator, controls: int, own: HiddenScenario
) -> dict[str, np.ndarray]:
    """Draw mean losses of controls in a masked view, skewed as in `losses`."""
    hardness = random.gamma(4, 0.5, controls)

    def noise() -> np.ndarray:
        return random.normal(0, 0.2, controls)

    right = hardness + noise()
    return {
        "right": right,
        "swapped": right + random.gamma(2, 0.5, controls) * own.gain + noise(),
        "prior": right + random.gamma(2, 0.5, controls) * own.rivals[0] + noise(),
        "visible_text": right + random.gamma(2, 0.5, controls) * own.rivals[1] + noise(),
        **{name: hardness + noise() for name in ("other", "untrained_right", "untrained_other")},
    }


def hidden_coverage(
    scene: str, controls: int, *, datasets: int, samples: int, seed: int
) -> dict[str, Coverage]:
    """Measure the coverage of the hidden gain and of the lead over the trained rivals."""
    random, own = np.random.default_rng(seed), HIDDEN_SCENES[scene]
    names = np.array([f"{i:03}" for i in range(controls)])

    def estimates(config: EvaluateConfig) -> dict[str, dict[str, float]]:
        return measure_panel(hidden_losses(random, controls, own), names, config).to_json()

    truths = {"hidden_gain": own.gain, "below_rivals": min(own.rivals)}
    return _count(truths, estimates, datasets=datasets, samples=samples)


def closed_coverage(
    scene: str, controls: int, *, datasets: int, samples: int, seed: int
) -> dict[str, Coverage]:
    """Measure the coverage of closed accuracy, given `right`, and of its gain over `swapped`."""
    random = np.random.default_rng(seed)
    right, swapped = CLOSED_SCENES[scene]
    names = [f"{i:03}" for i in range(controls) for _ in range(ITEMS)]

    def draw(shape: tuple[float, float]) -> list[list[float]]:
        chances = np.repeat(random.beta(*shape, controls), ITEMS)
        return [
            [0.0, 1.0] if found else [1.0, 0.0] for found in random.random(len(names)) < chances
        ]

    def estimates(config: EvaluateConfig) -> dict[str, dict[str, float]]:
        losses = {"right": draw(right), "swapped": draw(swapped)}
        found = measure_identification(losses, names, 0, config).to_json()
        return {"accuracy": found["accuracy"]["right"], "hidden_gain": found["hidden_gain"]}

    accuracy = right[0] / sum(right)
    truths = {"accuracy": accuracy, "hidden_gain": accuracy - swapped[0] / sum(swapped)}
    return _count(truths, estimates, datasets=datasets, samples=samples)


def _count(
    truths: dict[str, float],
    estimates: Callable[[EvaluateConfig], dict[str, dict[str, float]]],
    *,
    datasets: int,
    samples: int,
) -> dict[str, Coverage]:
    """Count how often intervals hold the truth over simulated datasets."""
    held, high = dict.fromkeys(truths, 0), dict.fromkeys(truths, 0)
    for dataset in range(datasets):
        found = estimates(EvaluateConfig(bootstrap=samples, seed=dataset))
        for name, truth in truths.items():
            held[name] += found[name]["low"] <= truth <= found[name]["high"]
            high[name] += found[name]["low"] > truth
    return {name: Coverage(held[name] / datasets, high[name] / datasets) for name in truths}


def every_hidden_coverage(
    controls: int, *, datasets: int, samples: int, seed: int = 0
) -> Iterator[tuple[str, Coverage]]:
    """Yield the coverage of each interval of reading in each scene, by its name."""
    for measure, scenes, what in (
        (hidden_coverage, HIDDEN_SCENES, ""),
        (closed_coverage, CLOSED_SCENES, "closed, "),
    ):
        for scene in scenes:
            found = measure(scene, controls, datasets=datasets, samples=samples, seed=seed)
            for name, one in found.items():
                yield f"{what}{name}, {scene}", one
