"""Peak memory of a capture from 1 to 100 times the rows: the model and a few shards.

Each size runs in a process of its own, on a small random model whose shards are large beside it.
The peak is the process' resident set, the pages of files that are mapped included; what it has
before the first shard, after a forward pass of full size, is subtracted, so that what is left is
the writer's own. Prints a Markdown table, and plots it.

    python benchmarks/store_memory.py --plot docs/images/store_memory.png
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np
from store_bench import captured, planned, target

from activation_store.target.capture import Capture
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens
from core.processes.task_pool import call_apart

TIMES = (1, 3, 10, 30, 100)
MODEL = "2x256"
LENGTH = 256
SHARD_ROWS = 16384


def main() -> None:
    """Measure, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=16384, help="tokens of the smallest store")
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    words = parser.parse_args()
    found = []
    print("| tokens | shards | a shard, MB | before, MB | peak, MB | more, in shards |")
    print("|---|---|---|---|---|---|")
    for times in TIMES:
        shards, size, before, peak = call_apart(_peak, {"tokens": words.tokens * times})
        found.append((words.tokens * times, (peak - before) / size))
        print(
            f"| {words.tokens * times} | {shards} | {size / 1e6:.1f} | {before / 1e6:.0f} "
            f"| {peak / 1e6:.0f} | {found[-1][1]:.1f} |"
        )
    if words.plot:
        _plot(found, words.plot)


def _peak(tokens: int) -> tuple[int, float, int, int]:
    """Return shards, bytes of a shard, and the resident set before and at its highest, in bytes."""
    _, net, _, shape = target("embedded", MODEL)
    warm = _rows(4 * LENGTH)
    with tempfile.TemporaryDirectory() as folder:  # libraries load
        captured(Path(folder), planned(warm, (0,), shape.d_model, chunk_rows=64), warm, net)
    rows = _rows(tokens)
    plan = planned(rows, (0,), shape.d_model, shard_rows=SHARD_ROWS, store_dtype="float32")
    capture = Capture(net, plan.layers)
    for batch in list(plan.batches(0))[:8]:
        capture([rows[s.example_id].ids for s in batch])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.TemporaryDirectory() as folder:
        captured(Path(folder), plan, rows, net)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return plan.n_shards, plan.raw_bytes / plan.n_shards, before, peak


def _rows(tokens: int) -> TokenTable:
    draw = np.random.default_rng(0)
    return TokenTable(
        (
            f"{i:07d}",
            Tokens(draw.integers(5, 1000, LENGTH).astype(np.int32), np.zeros(LENGTH, np.uint8), 0),
        )
        for i in range(tokens // LENGTH)
    )


def _plot(found: list[tuple[int, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3))
    axes.semilogx(*zip(*found, strict=True), "o-")
    axes.set(xlabel="tokens captured", ylabel="peak above the model, in shards", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
