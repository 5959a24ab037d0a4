"""Compression ratio and speed of the lossless codec on real activations, by layer and dtype.

The residual stream of one model over this project's own text, captured once a format. Sizes are of
whole shard files; packing and reading are in MB of raw activations a second, on one thread, and
reading is through Zarr, checksums and all, as any program would. Prints a Markdown table.

    python benchmarks/store_codecs.py --model embedded --tokens 16384
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from store_bench import captured, planned, sequences, target

from activation_store.layout.arrays import array_file, layer_array, open_arrays
from activation_store.layout.shard_image import chunk_packer, make_shard_image

FORMATS = ("bfloat16", "float16", "float32")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--random", help="BLOCKSxD_MODEL: a random model in place of --model")
    parser.add_argument("--tokens", type=int, default=16_384)
    words = parser.parse_args()
    name, net, tokenizer, shape = target(words.model, words.random)
    rows = sequences(tokenizer, words.tokens, shape.max_positions)
    layers = tuple(sorted({k * (shape.n_blocks - 1) // 4 for k in range(5)}))
    print(f"{name}, {words.tokens} tokens\n")
    print("| format | block | raw MB | lossless MB | ratio | packing MB/s | reading MB/s |")
    print("|---|---|---|---|---|---|---|")
    for dtype in FORMATS:
        plan = planned(rows, layers, shape.d_model, store_dtype=dtype, codec="lossless")
        with tempfile.TemporaryDirectory() as folder:
            captured(Path(folder), plan, rows, net)
            arrays = open_arrays(Path(folder), layers)
            for layer in layers:
                array = layer_array(layer)
                start = time.perf_counter()
                values = arrays[array][: plan.shard_rows]
                reading = time.perf_counter() - start
                start = time.perf_counter()
                make_shard_image(values, plan.chunk_rows, chunk_packer(dtype, "lossless"))
                packing = time.perf_counter() - start
                raw = make_shard_image(values, plan.chunk_rows).digest.size * plan.n_shards
                packed = sum(
                    (Path(folder) / array_file(array, i)).stat().st_size
                    for i in range(plan.n_shards)
                )
                rate = np.array([1 / packing, 1 / reading]) * values.nbytes / 1e6
                print(
                    f"| {dtype} | {layer} | {raw / 1e6:.2f} | {packed / 1e6:.2f} "
                    f"| {packed / raw:.3f} | {rate[0]:.0f} | {rate[1]:.0f} |"
                )


if __name__ == "__main__":
    main()
