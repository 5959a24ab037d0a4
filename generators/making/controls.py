"""An LLM writes controls first, then stimuli, without seeing the controls."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from core.documents.canonical import digest
from core.progress import Progress
from core.records.tables import Dropped
from generators.kinds import written_kinds
from generators.kinds.base import Kind, WrittenKind
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply_json import Rejection
from generators.llm.prompt_files import PromptFiles
from generators.making.config import ConversationsConfig
from generators.making.waves import PlannedRequest, Quota, fill_quotas, request_limit
from generators.rules.duplicates import Duplicates
from generators.rules.text import find_control_leak

_SLUG = re.compile(r"[^\w]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stimulus:
    """A user message after a control.

    Attributes:
        text: the message.
        request: key of the request that wrote it; None where no LLM did.
    """

    text: str
    request: str | None = None


@dataclass(kw_only=True)
class Control:
    """A control that passed the rules; its stimulus is added later.

    Attributes:
        slot: its place in the order of planning of its kind.
        request: key of the request that wrote it; None where no LLM did.
        stimuli: user messages after it, in the order in which a plan takes them.
        facts: what a drawn kind makes its questions from.
    """

    kind: Kind
    category: str
    label: str
    text: str
    slot: int
    request: str | None = None
    stimuli: tuple[Stimulus, ...] = ()
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One planned control: the `lap`-th time that `idea` is used."""

    number: int
    category: str
    idea: str
    lap: int


def slots(seeds: Mapping[str, Sequence[str]], seed: int) -> Iterator[Slot]:
    """Yield planned controls endlessly, alternating between categories in a random order.

    The order does not depend on how many are taken, so a larger plan begins with a smaller one.
    """
    categories = list(seeds)
    Random(digest([seed, "categories", categories])).shuffle(categories)
    for number in itertools.count():
        turn, place = divmod(number, len(categories))
        category = categories[place]
        lap, which = divmod(turn, len(seeds[category]))
        yield Slot(number=number, category=category, idea=seeds[category][which], lap=lap)


async def ask_controls(
    config: ConversationsConfig,
    texts: PromptFiles,
    client: LLMClient,
    progress: Progress,
    earlier: Sequence[str] = (),
) -> tuple[list[Control], list[Dropped]]:
    """Have the LLM write the controls of every written kind; also return the dropped replies.

    Kinds come in the config's order, slots in theirs.

    Args:
        config: what is wanted.
        texts: prompts and seeds.
        client: what is asked.
        progress: told the requests done.
        earlier: controls of earlier versions, which must not come again.

    Raises:
        EndpointError: the endpoint cannot be used.
    """
    kinds = written_kinds(config.kinds)
    kept: dict[str, list[Control]] = {name: [] for name in kinds}
    seen = Duplicates(config.filters.near_duplicate, earlier)
    quotas: list[Quota] = []
    for name, kind in kinds.items():
        plan = config.kinds[name]
        seeds = texts.seeds_by_category(kind.seeds)
        prompt = texts.prompt(kind.control_prompt)
        # what must not come back as a control: bare seeds, and the few-shot examples
        for idea in itertools.chain.from_iterable(seeds.values()):
            seen.add(idea)
        for values, reply in prompt.examples:
            seen.add(kind.control(values["idea"], reply, Random(0)))
        wanted: list[tuple[str | None, int]] = [(None, plan.controls)]
        if plan.categories is not None:
            wanted = [*plan.categories.items()]
        quotas += [
            Quota(
                want=want,
                asks=_control_asks(kind, category, kept[name], seen, config, texts),
                most=request_limit(want, config.over_ask),
            )
            for category, want in wanted
        ]
    dropped = await fill_quotas(quotas, client, config, progress, "controls")
    for own in kept.values():
        own.sort(key=lambda control: control.slot)  # quotas of categories are filled side by side
    return list(itertools.chain.from_iterable(kept.values())), dropped


def _control_asks(
    kind: WrittenKind,
    category: str | None,
    kept: list[Control],
    seen: Duplicates,
    config: ConversationsConfig,
    texts: PromptFiles,
) -> Iterator[PlannedRequest]:
    prompt = texts.prompt(kind.control_prompt)

    def draw_for(purpose: str, slot: Slot) -> Random:
        return Random(digest([config.seed, purpose, kind.name, slot.number]))

    for slot in slots(texts.seeds_by_category(kind.seeds), config.seed):
        if category is not None and slot.category != category:
            continue

        def accept(reply: dict[str, Any], key: str, slot: Slot = slot) -> Sequence[Rejection]:
            text = kind.control(slot.idea, reply, draw_for("wording", slot))
            if fault := seen.find(text):
                return [fault]
            seen.add(text)
            kept.append(
                Control(
                    kind=kind,
                    category=slot.category,
                    label=control_label(kind.name, slot.category, slot.idea),
                    text=text,
                    slot=slot.number,
                    request=key,
                )
            )
            return []

        yield PlannedRequest(
            where=f"control {kind.name}/{slot.category}: {slot.idea}",
            prompt=prompt,
            values=kind.control_values(slot.idea, texts, draw_for("details", slot)),
            sample=slot.lap,
            accept=accept,
        )


async def ask_stimuli(
    controls: Sequence[Control],
    config: ConversationsConfig,
    texts: PromptFiles,
    client: LLMClient,
    progress: Progress,
) -> list[Dropped]:
    """Give each control whose views need one a stimulus, asked without sight of the control.

    Returns:
        what was dropped.

    Raises:
        EndpointError: the endpoint cannot be used.
    """
    needing = [
        control
        for control in controls
        if {"stimulus", "system"} & set(config.kinds[control.kind.name].views or control.kind.views)
    ]
    if not needing:
        return []
    examples = [reply["message"] for reply in texts.prompt("stimulus").few_shot]
    seen = Duplicates(config.filters.near_duplicate, examples)
    quotas = [
        Quota(
            want=1,
            asks=_stimulus_asks(control, seen, config, texts),
            most=request_limit(1, config.over_ask),
        )
        for control in needing
    ]
    return await fill_quotas(quotas, client, config, progress, "stimuli")


def _stimulus_asks(
    control: Control, seen: Duplicates, config: ConversationsConfig, texts: PromptFiles
) -> Iterator[PlannedRequest]:
    subjects = texts.seed_list("everyday")
    prompt = texts.prompt("stimulus")

    def accept(reply: dict[str, Any], key: str) -> Sequence[Rejection]:
        text = reply["message"]
        fault = seen.find(text) or find_control_leak(
            text, control.text, control.label, config.filters.shared_words
        )
        if fault:
            return [fault]
        seen.add(text)
        control.stimuli = (Stimulus(text=text, request=key),)
        return []

    for attempt in itertools.count():
        # drawn from the slot, not from the control: the model and the draw know nothing of it
        drawn = digest([config.seed, "stimulus", control.kind.name, control.slot, attempt])
        subject = subjects[int(drawn[:8], 16) % len(subjects)]
        yield PlannedRequest(
            where=f"stimulus of {control.label}, about {subject}",
            prompt=prompt,
            values={"subject": subject},
            # subjects come again for other controls, and must then give other messages
            sample=int(drawn[8:15], 16),
            accept=accept,
        )


def control_label(kind: str, category: str, idea: str) -> str:
    """Build the label of a control, such as `persona-sea-a-lighthouse-keeper`."""
    return "-".join([kind, category.replace("_", "-"), _SLUG.sub("-", idea.lower()).strip("-")])
