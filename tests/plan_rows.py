"""Plan a store of many rows in a process of its own: python plan_rows.py ROWS LENGTH FOLDER.

Prints as JSON what the plan holds, the seconds it took, and the most memory of the process's own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

from activation_store.layout.config import CaptureConfig
from activation_store.layout.index import SequenceIndex
from activation_store.layout.plan import plan_layout
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens


class PeakMemory:
    """Watches the anonymous memory of this process; pages of mapped files are not of its own."""

    def __init__(self) -> None:
        self.most = 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def stop(self) -> int:
        """End the watch, and give the most bytes that were seen."""
        self._done.set()
        self._watcher.join()
        return self.most

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(line for line in lines if line.startswith("RssAnon"))
            self.most = max(self.most, int(own.split()[1]) * 1024)
            if self._done.wait(0.2):
                return


def main(rows: int, length: int, folder: Path) -> None:
    """Plan, write the index, and open it again."""
    memory = PeakMemory()
    base = np.random.default_rng(0).integers(0, 128_000, length + 1000).astype(np.int32)
    kinds = np.zeros(length, np.uint8)
    start = time.process_time()
    table = TokenTable(
        ((f"{i:016x}", Tokens(base[i % 1000 : i % 1000 + length], kinds, 40)) for i in range(rows)),
        scratch=folder,
    )
    config = CaptureConfig(layers=(15,), compute_dtype="bfloat16")
    plan = plan_layout(table, config=config, layers=(15,), d_model=4096, target={})
    planned = time.process_time() - start
    index_file = folder / "index.parquet"
    index_file.write_bytes(plan.index.to_parquet())
    start = time.process_time()
    SequenceIndex.read(index_file).number(f"{rows // 2:016x}")
    opened = time.process_time() - start
    found = {"tokens": plan.tokens, "shards": plan.n_shards, "bytes": memory.stop()}
    print(json.dumps({**found, "seconds": planned, "opened": opened}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
