"""Build rows of the conversations table from controls: views, groups, splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from core.documents.canonical import digest
from core.records.tables import PLAIN_TEXT, Conversation, Message, View, control_id, example_id
from generators.kinds import drawn_kinds, get_kind, written_kinds
from generators.llm.prompt_files import PromptFiles
from generators.making.config import ConversationsConfig
from generators.making.controls import Control, Stimulus
from generators.making.crossing import choose_stimuli
from generators.making.drawn import DRAWN
from generators.splits import SplitMember, grouped_splits


def conversation_rows(
    controls: Sequence[Control], config: ConversationsConfig, generator: str, texts: PromptFiles
) -> list[Conversation]:
    """Build the rows of all controls in all their views, in the order of planning, with splits.

    Args:
        controls: what was kept, with their stimuli.
        config: the plan.
        generator: identity of the LLM that wrote the controls of its kinds.
        texts: prompts and seeds.

    Raises:
        ConfigError: a held-out category is none of the rows'.
    """
    members = [
        SplitMember(
            label=control.label,
            control=control.text,
            kind=control.kind.name,
            category=control.category,
        )
        for control in controls
    ]
    # a small plan may not reach a held-out category; a name that no seed has was refused before
    present = {f"{member.kind}/{member.category}" for member in members}
    told = {name for name in config.kinds if get_kind(name).categories(texts) is not None}
    held_out = tuple(
        name
        for name in config.splits.test_ood
        if name in present or name.partition("/")[0] not in told
    )
    splits = grouped_splits(
        members,
        config.splits.model_copy(update={"test_ood": held_out}),
        in_order=drawn_kinds(config.kinds),
    )
    prompts = {
        name: texts.prompt(kind.control_prompt).digest
        for name, kind in written_kinds(config.kinds).items()
    }
    rows: list[Conversation] = []
    for control, (group, split) in zip(controls, splits, strict=True):
        own = control_id(control.kind.name, control.text)
        crossed = choose_stimuli(
            control.stimuli,
            split,
            count=config.kinds[control.kind.name].stimuli,
            share=config.splits.stimuli,
            seed=config.seed,
        )
        choices = (crossed, [(None, split)])
        for view in config.kinds[control.kind.name].views or control.kind.views:
            for stimulus, seen_in in choices[view == "control"]:
                messages = _messages(control, view, stimulus, config.seed)
                rows.append(
                    Conversation(
                        example_id=example_id(control.label, view, messages),
                        control_id=own,
                        group_id=group,
                        kind=control.kind.name,
                        category=control.category,
                        label=control.label,
                        view=view,
                        split=seen_in,
                        source="generator",
                        messages=messages,
                        provenance=_provenance(control, stimulus, config.seed, generator, prompts),
                    )
                )
    return rows


def _provenance(
    control: Control,
    stimulus: Stimulus | None,
    seed: int,
    generator: str,
    prompts: Mapping[str, str],
) -> dict[str, Any]:
    """Tell where the row of `control` with `stimulus` comes from."""
    if control.facts is not None:
        return {
            "generator": DRAWN,
            "number": control.slot,
            "seed": seed,
            "facts": dict(control.facts),
        }
    asked = [control.request, *([stimulus.request] if stimulus is not None else [])]
    return {
        "generator": generator,
        "prompt": prompts[control.kind.name],
        "requests": asked,
        "seed": seed,
    }


def _messages(
    control: Control, view: View, stimulus: Stimulus | None, seed: int
) -> tuple[Message, ...]:
    """Build the conversation of `control` in `view`; only the view `control` has no stimulus."""
    if stimulus is None:
        role = PLAIN_TEXT if control.kind.plain_text else "user"
        return (Message(role=role, content=control.text, segment="control"),)
    asked = Message(role="user", content=stimulus.text, segment="stimulus")
    if view == "system":
        return (Message(role="system", content=control.text, segment="control"), asked)
    draw = Random(digest([seed, "acknowledgement", control.text]))
    said = draw.choice(control.kind.acknowledgements)
    return (
        Message(role="user", content=control.text, segment="control"),
        Message(role="assistant", content=said, segment="control"),
        asked,
    )
