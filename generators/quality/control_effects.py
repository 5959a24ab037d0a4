"""Rows whose control the target ignores: their control effects, counted and flagged.

The control effect of a row is the log-likelihood of its completion under its own control, less that
under another one, in nats (evaluators/measure/control_effect.py). Where it is near zero there is
nothing to read, and a decoder learns nothing but to guess.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.records.tables import COMPLETES, Conversation
from generators.llm.chat.reply_json import Rejection
from generators.quality.config import ControlEffectConfig
from generators.quality.findings import ControlEffects

EFFECT = "control_effect"
"""Key of a checked row's provenance: its control effect in nats."""


def spread_effects(rows: Sequence[Conversation], effects: Mapping[str, float]) -> dict[str, float]:
    """Give rows without a completion of their own the effect of those that have one.

    The row that a completion was written for has that completion's; any other row of a view that
    hides the control has the mean of its control's. Rows of view `control` have none.

    Args:
        rows: all rows.
        effects: control effect of rows with a completion by example id, in nats.
    """
    of_control: dict[str, list[float]] = defaultdict(list)
    found = dict(effects)
    for row in rows:
        if row.example_id in effects:
            of_control[row.control_id].append(effects[row.example_id])
            if (source := row.provenance.get(COMPLETES)) is not None:
                found.setdefault(source, effects[row.example_id])
    for row in rows:
        if row.view != "control" and row.control_id in of_control:
            found.setdefault(row.example_id, statistics.fmean(of_control[row.control_id]))
    return found


def flag_ignored(
    rows: Sequence[Conversation], effects: Mapping[str, float], config: ControlEffectConfig
) -> dict[str, Rejection]:
    """Flag the rows whose control effect is below `config.least`, by example id.

    Args:
        rows: all rows.
        effects: as `spread_effects` returns them.
        config: the least effect, and the splits whose rows are flagged.
    """
    if config.least is None:
        return {}
    return {
        row.example_id: Rejection("control_ignored", f"{effects[row.example_id]:.2f} nats")
        for row in rows
        if row.split in config.splits and effects.get(row.example_id, config.least) < config.least
    }


def record_effects(
    rows: Sequence[Conversation], effects: Mapping[str, float]
) -> list[Conversation]:
    """Write each row's own effect into its provenance."""
    return [
        replace(row, provenance={**row.provenance, EFFECT: round(effects[row.example_id], 4)})
        if row.example_id in effects
        else row
        for row in rows
    ]


def summarise_effects(
    rows: Sequence[Conversation], effects: Mapping[str, float]
) -> dict[str, ControlEffects]:
    """Summarise the effects of rows with a completion: of `all`, and of each `kind/category`."""
    parts: dict[str, list[Conversation]] = {"all": []}
    for row in rows:
        if row.example_id in effects:
            parts["all"].append(row)
            parts.setdefault(f"{row.kind}/{row.category}", []).append(row)
    return {
        name: ControlEffects(
            rows=len(own),
            controls=len({row.control_id for row in own}),
            mean=statistics.fmean(values),
            median=statistics.median(values),
            below_zero=sum(value <= 0 for value in values) / len(values),
        )
        for name, own in sorted(parts.items(), key=lambda part: (part[0] != "all", part[0]))
        if (values := [effects[row.example_id] for row in own])
    }
