"""Open an activation store with nothing but zarr and numpy, and print an example's activations.

`latentqa store find STORE EXAMPLE_ID` (or index.parquet) says which rows are the example's.

python examples/open_store.py STORE LAYER ROW_START N_TOKENS
"""

import sys

import numpy as np
import zarr


def main(path: str, layer: str, row_start: str, n_tokens: str) -> None:
    """Print token ids, shape, norms and first numbers of the rows."""
    store = zarr.open_group(path, mode="r")
    array = store[f"acts/L{layer}"]
    rows = slice(int(row_start), int(row_start) + int(n_tokens))

    activations = array[rows]  # zarr checks the crc32c of every chunk that it reads
    if array.attrs["dtype"] == "bfloat16":  # kept as its 16 bits: the upper half of a float32
        activations = (activations.astype(np.uint32) << 16).view(np.float32)

    print("tokens", store["tokens"][rows].tolist())
    print("activations", activations.shape, activations.dtype)
    print("norms", np.linalg.norm(activations, axis=1).round(3).tolist())
    print(activations[:3, :4])


if __name__ == "__main__":
    main(*sys.argv[1:])
