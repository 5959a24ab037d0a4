"""Rows of the conversations table: each control in its views, its group and its split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from core.canonical import digest
from core.tables import Conversation, Message, View, control_id, example_id
from generators.kinds import drawn_kinds, kind_named, written_kinds
from generators.llm.prompt_files import PromptFiles
from generators.making.config import ConversationsConfig
from generators.making.controls import Control
from generators.making.drawn import DRAWN
from generators.splits import Member, grouped_splits


def conversation_rows(
    controls: Sequence[Control], config: ConversationsConfig, generator: str, texts: PromptFiles
) -> list[Conversation]:
    """Rows of all controls and their views, in the order of planning, each in its split.

    Args:
        controls: what was kept, with their stimuli.
        config: the plan.
        generator: identity of the LLM that wrote the controls of its kinds.
        texts: prompts and seeds.

    Raises:
        ConfigError: a held-out category is none of the rows'.
    """
    members = [
        Member(
            label=control.label,
            control=control.text,
            kind=control.kind.name,
            category=control.category,
        )
        for control in controls
    ]
    # a small plan may not reach a held-out category; a name that no seed has was refused before
    present = {f"{member.kind}/{member.category}" for member in members}
    told = {name for name in config.kinds if kind_named(name).categories(texts) is not None}
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
        for view in config.kinds[control.kind.name].views or control.kind.views:
            messages = _messages(control, view, config.seed)
            if messages is None:
                continue
            rows.append(
                Conversation(
                    example_id=example_id(control.label, view, messages),
                    control_id=own,
                    group_id=group,
                    kind=control.kind.name,
                    category=control.category,
                    label=control.label,
                    view=view,
                    split=split,
                    source="generator",
                    messages=messages,
                    provenance=_provenance(control, view, config.seed, generator, prompts),
                )
            )
    return rows


def _provenance(
    control: Control, view: View, seed: int, generator: str, prompts: Mapping[str, str]
) -> dict[str, Any]:
    """Where the row of `control` in `view` comes from."""
    if control.facts is not None:
        return {
            "generator": DRAWN,
            "number": control.slot,
            "seed": seed,
            "facts": dict(control.facts),
        }
    requests = [control.request]
    return {
        "generator": generator,
        "prompt": prompts[control.kind.name],
        "requests": requests if view == "control" else [*requests, control.stimulus_request],
        "seed": seed,
    }


def _messages(control: Control, view: View, seed: int) -> tuple[Message, ...] | None:
    """The conversation of `control` in `view`; None if it needs a stimulus and has none."""
    if view == "control":
        return (Message(role="user", content=control.text, segment="control"),)
    if control.stimulus is None:
        return None
    stimulus = Message(role="user", content=control.stimulus, segment="stimulus")
    if view == "system":
        return (Message(role="system", content=control.text, segment="control"), stimulus)
    draw = Random(digest([seed, "acknowledgement", control.text]))
    said = draw.choice(control.kind.acknowledgements)
    return (
        Message(role="user", content=control.text, segment="control"),
        Message(role="assistant", content=said, segment="control"),
        stimulus,
    )
