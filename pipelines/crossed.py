"""Decoders of several experiments, each tested on the rows of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.reading_tables import GAINS, estimate, markdown
from pipelines.runner import Runner

TRAINED = "train"
TESTED = "evaluate"


def crossed(runners: Mapping[str, Runner]) -> dict[tuple[str, str], dict[str, Any]]:
    """Run every experiment, then every decoder on the rows of every other.

    The experiments need the same target, read layer and root. A decoder on foreign rows is an
    artifact `evaluate` like any other: its identity has that decoder and those rows, it is found
    again, and goes on where it was stopped. Rows, views and conditions are those of the experiment
    whose rows they are.

    Args:
        runners: experiment by the name under which it is shown.

    Returns:
        The `reading` tree by (name of the decoder's experiment, name of the rows').

    Raises:
        LatentQAError: a step cannot be made.
    """
    out = {}
    decoders = {}
    for name, runner in runners.items():
        runner.prepare()
        with runner.open():
            out[name, name] = runner.run().metrics["reading"]
        decoders[name] = runner.runs[TRAINED]
    for tested, runner in runners.items():
        own = runner.runs[TESTED]
        for trained in runners:
            if trained != tested:
                runner.runs[TRAINED] = decoders[trained]
                with runner.open():
                    found = runner.step(TESTED)
                out[trained, tested] = found.artifact.record["counts"]["reading"]
        # the runner is its own experiment's again
        runner.runs |= {TRAINED: decoders[tested], TESTED: own}
    return out


def crossed_table(found: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """As Markdown, the decoders on one data set below each other; nats a token, 95 % intervals over
    controls."""
    head = ["trained on", "tested on", "split", "view", "n", "right", *GAINS]
    lines = [
        [
            trained,
            tested,
            split,
            view,
            str(case["grounded_gain"]["n"]),
            estimate(case["answer_loss"]["right"]),
            *(estimate(case.get(name)) for name in GAINS),
        ]
        for (trained, tested), tree in sorted(found.items(), key=lambda one: one[0][::-1])
        for split, views in tree.items()
        for view, case in views.items()
    ]
    return markdown([name.replace("_", " ") for name in head], lines)
