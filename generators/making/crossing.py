"""Crossed designs: several stimuli a control, and each stimulus under several controls.

A decoder that reads the hidden control must distinguish two rows that share every visible word, and
recognise a control under words that it has not seen. Both require shared stimuli.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from core.documents.canonical import digest
from core.records.tables import Split
from generators.making.config import FilterConfig
from generators.making.controls import Control, Stimulus
from generators.rules.text import find_control_leak


def share_stimuli(
    controls: Sequence[Control], counts: Mapping[str, int], filters: FilterConfig, seed: int
) -> None:
    """Pair LLM-written controls with the stimuli of other controls of their kind.

    Args:
        controls: changed in place; each keeps its own stimulus as the first.
        counts: stimuli of a control, by kind.
        filters: a stimulus that gives a control away is not shared with it.
        seed: seed of the draw.
    """
    pools: dict[str, list[Stimulus]] = defaultdict(list)
    for control in controls:
        if control.facts is None:
            pools[control.kind.name] += control.stimuli[:1]
    for control in controls:
        want = counts[control.kind.name] - len(control.stimuli)
        if control.facts is not None or not control.stimuli or want <= 0:
            continue
        others = [one for one in pools[control.kind.name] if one not in control.stimuli]
        Random(digest([seed, "shared stimuli", control.text])).shuffle(others)
        fit = (
            one
            for one in others
            if find_control_leak(one.text, control.text, control.label, filters.shared_words)
            is None
        )
        control.stimuli += tuple(one for one, _ in zip(fit, range(want), strict=False))


def choose_stimuli(
    stimuli: Sequence[Stimulus], split: Split, *, count: int, share: float, seed: int
) -> list[tuple[Stimulus, Split]]:
    """Choose the stimuli of one control, each with the split that its rows belong to.

    Args:
        stimuli: the control's stimuli in their order.
        split: the control's own split.
        count: stimuli that are wanted.
        share: share of all stimuli that is held out from training.
        seed: seed of what is held out.

    Returns:
        Of a training control, `count` stimuli of which the share that is held out stands in
        `test_seen`; of any other control held-out stimuli alone. With a share of 0, the first
        `count` in the control's own split.
    """
    if share == 0:
        return [(one, split) for one in stimuli[:count]]
    out = [one for one in stimuli if is_held_out(one.text, share, seed)]
    wanted = max(1, round(count * share))
    if split != "train":
        return [(one, split) for one in out[:wanted]]
    seen = [one for one in stimuli if not is_held_out(one.text, share, seed)]
    own: list[tuple[Stimulus, Split]] = [(one, "train") for one in seen[: max(1, count - wanted)]]
    return [*own, *((one, "test_seen") for one in out[:wanted])]


def is_held_out(stimulus: str, share: float, seed: int) -> bool:
    """Tell by hash whether a stimulus is held out from training."""
    return int(digest([seed, "held-out stimulus", stimulus])[:12], 16) < share * 16**12
