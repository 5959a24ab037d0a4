"""Answers of a decoder on the terminal, and what every JSON document says of the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.text.wording import share
from latentqa.terminal.printing import say

if TYPE_CHECKING:
    from pipelines.asking.reader import Reader
    from pipelines.asking.results import AskResult


def reader_document(reader: Reader) -> dict[str, Any]:
    """Describe the decoder and the model that it reads, for a JSON document."""
    return {
        "decoder": reader.name,
        "model": reader.decoder.binding.model,
        "trained_layers": list(reader.trained_layers),
        "foreign_target": None if reader.foreign is None else reader.foreign.to_json(),
    }


def print_answers(reader: Reader, asked: AskResult) -> None:
    """Print what was read, then each question with its answers."""
    trained = reader.trained_layers
    beside = ""
    if not set(asked.layers) <= set(trained):
        beside = f" (the decoder was trained on {_blocks(trained)})"
    say(
        f"{reader.name}, view {asked.view}: {asked.activations} activations of "
        f"{_blocks(asked.layers)}{beside}"
    )
    print_foreign(reader)
    if asked.ood is not None and asked.ood.out_of_distribution:
        say(
            "Out of distribution: these activations lie farther from the decoder's "
            f"training activations than {share(asked.ood.share_nearer)} of {asked.ood.rows} "
            "held-out rows; its answers may mean nothing."
        )
    if asked.withheld:
        say(f"{asked.withheld} of them belong to control tokens, which its training withheld.")
    for question, found, drawn, agreed in zip(
        asked.prompt.questions, asked.answers, asked.samples, asked.agreement, strict=True
    ):
        say(f"\nQ: {question}")
        say(f"A: {found.text}{'' if found.finished else ' …'}")
        sure = f"   {found.log_probability:.2f} nats a token"
        say(sure if agreed is None else f"{sure}; agreement of drawn answers {agreed:.2f}")
        for own in drawn:
            say(f"   drawn: {own.text}{'' if own.finished else ' …'}")


def print_foreign(reader: Reader) -> None:
    """Say that the model whose activations are read is not the decoder's own target."""
    if reader.foreign is not None:
        adapter = reader.foreign.adapter
        named = reader.foreign.model + (f" with {adapter}" if adapter else "")
        differs = ", ".join(reader.foreign.differs) or "nothing"
        say(f"Foreign target {named}: {differs} differs from the decoder's own target.")


def _blocks(layers: tuple[int, ...]) -> str:
    return f"block{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
