"""The model card of a published decoder, made of records alone.

It names the target by repository, commit and digests, the keys of data, store and decoder, the
settings, and what the decoder reads with intervals. It names no folder of this machine.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

from core.text.text_tables import markdown
from pipelines.artifacts.artifact import Artifact
from pipelines.reports.publish.target import PublishedTarget
from pipelines.reports.run.tables import reading_tables

_TEMPLATE = Path(__file__).with_name("card.md")
_COUNTS = ("rows", "questions", "steps", "best_step", "loss", "validation")
_READING = (
    "Answer loss in nats per token on held-out controls, with 95 % bootstrap intervals over "
    "controls. The decoder reads what is hidden in a masked view if the intervals of the hidden "
    "gain and `below rivals` lie above zero.\n\n"
)


def model_card(train: Artifact, evaluated: Artifact | None, target: PublishedTarget) -> str:
    """Write the card, as Markdown with the hub's header.

    Args:
        train: the decoder.
        evaluated: its evaluation, or None.
        target: its target.
    """
    facts = {
        "repository": target.repository,
        "revision": target.revision,
        "licence": target.licence,
        **target.digests,
    }
    keys = {"train": train.key, **train.record["inputs"]}
    if evaluated is not None:
        keys["evaluate"] = evaluated.key
    counts = train.record["counts"]
    card = ModelCard.from_template(
        ModelCardData(
            library_name="peft",
            base_model=target.repository,
            license=target.licence,
            pipeline_tag="text-generation",
            tags=["latentqa", "lora", "interpretability"],
            base_model_relation="adapter" if target.repository else None,
        ),
        template_str=_TEMPLATE.read_text(encoding="utf-8"),
        target=target,
        target_table=markdown(
            ["", ""], [[name, f"`{value}`"] for name, value in facts.items() if value]
        ),
        reading=_READING + reading_tables(evaluated.record["counts"]["reading"])
        if evaluated is not None
        else "It has not been evaluated.",
        counts_table=markdown(
            ["", ""],
            [[name, str(counts[name])] for name in _COUNTS if counts.get(name) is not None],
        ),
        settings=yaml.safe_dump(train.identity["config"], sort_keys=False).rstrip(),
        keys_table=markdown(["step", "key"], [[step, f"`{key}`"] for step, key in keys.items()]),
    )
    return str(card).rstrip() + "\n"
