"""Write the estimated figures of docs/scale.md: memory, disk and time of models of known shapes.

    python scripts/scale.py

No weights are needed: the shapes are defined below, and memory is estimated as by `latentqa plan
--memory`. Replaces the text between the two comments in docs/scale.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

# the checkout that this file lies in, whichever one is installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transformers import LlamaConfig

from core.text.wording import duration, size
from pipelines.experiment.config import Experiment
from pipelines.running.memory_plan import MeasuredPasses, describe_memory, fit, measure

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- estimated: scripts/scale.py -->\n", "<!-- end -->\n"
DEVICES = (24, 40, 80)
"""Memory of one device, in GB."""
FLOPS, MFU = 989e12, 0.4
"""bfloat16 operations a second of an H100, and the assumed share of them that is used."""
CONTROLS, VIEWS, TOKENS, QUESTIONS = 1_000_000, 3, 200, 100
"""Of a large data set: controls, views of each, tokens of a row, tokens of its questions."""


@dataclass(frozen=True)
class Shape:
    """A model by its config."""

    name: str
    read_layer: int
    config: LlamaConfig


def llama(width: int, inner: int, blocks: int, heads: int) -> LlamaConfig:
    """Return the config of a Llama 3 model."""
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=8,
    )


SHAPES = (
    Shape("Llama-3-8B", 15, llama(4096, 14_336, 32, 32)),
    Shape("Llama-3-70B", 39, llama(8192, 28_672, 80, 64)),
)


def main() -> None:
    """Replace the figures of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    written = "".join(section(shape) for shape in SHAPES)
    PAGE.write_text(before + BEGIN + "\n" + written + END + after, encoding="utf-8")


def section(shape: Shape) -> str:
    """Return the figures of a model, in Markdown."""
    number = {"compute_dtype": "bfloat16"}
    experiment = Experiment.model_validate(
        {
            "experiment": "scale",
            "data": {"path": "."},
            "dump": {"layers": [shape.read_layer], "batch_tokens": 16_384, **number},
            "train": {"precision": "bfloat16", "micro_batch_tokens": 8192},
            "evaluate": number,
        }
    )
    measured = measure(experiment, shape.config, [shape.read_layer])
    lines = [f"### {shape.name}\n", "```text"]
    for gigabytes in DEVICES:
        lines += [*describe_memory(fit(measured, experiment, gigabytes * 10**9)), ""]
    return "\n".join([*lines[:-1], "```\n", *costs(shape, measured), ""])


def costs(shape: Shape, measured: MeasuredPasses) -> list[str]:
    """Estimate disk and time of a large data set."""
    rows = CONTROLS * VIEWS
    own = shape.config
    vocabulary = own.vocab_size * own.hidden_size
    a_block = (measured.parameters - 2 * vocabulary) / own.num_hidden_layers
    dump = 2 * a_block * (shape.read_layer + 1) * rows * TOKENS
    # forward, and backward to the activations: the base's weights take no gradient
    train = 4 * (measured.parameters - vocabulary) * rows * (TOKENS + QUESTIONS)
    stored = 2 * own.hidden_size * rows * TOKENS
    return [
        f"{CONTROLS:,} controls in {VIEWS} views of {TOKENS} tokens, on one H100 at "
        f"{MFU:.0%} of its peak:".replace("%", " %"),
        "",
        "| | |",
        "|---|---|",
        f"| store, bfloat16, one layer | {size(stored)} |",
        f"| dump | {duration(dump / FLOPS / MFU)} |",
        f"| an epoch of training | {duration(train / FLOPS / MFU)} |",
        f"| likewise with `runtime.checkpointing` | {duration(1.5 * train / FLOPS / MFU)} |",
        "",
    ]


if __name__ == "__main__":
    main()
