"""The plan of three million rows: memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROWS, LENGTH = 3_000_000, 200
MOST_BYTES, MOST_SECONDS, MOST_TO_OPEN = 4e9, 300, 10

CODE = """
import json, sys, threading, time
from pathlib import Path
import numpy as np
from activation_store.layout.config import CaptureConfig
from activation_store.layout.index import SequenceIndex
from activation_store.layout.plan import make_plan
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens

rows, length, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
peak, done = 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.2):
        lines = Path("/proc/self/status").read_text().splitlines()
        own = next(line for line in lines if line.startswith("RssAnon"))
        peak = max(peak, int(own.split()[1]) * 1024)

watcher = threading.Thread(target=watch)
watcher.start()
base = np.random.default_rng(0).integers(0, 128_000, length + 1000).astype(np.int32)
kinds = np.zeros(length, np.uint8)
start = time.process_time()
table = TokenTable(
    ((f"{i:016x}", Tokens(base[i % 1000 : i % 1000 + length], kinds, 40)) for i in range(rows)),
    scratch=folder,
)
config = CaptureConfig(layers=(15,), compute_dtype="bfloat16")
plan = make_plan(table, config=config, layers=(15,), d_model=4096, target={})
planned = time.process_time() - start
(folder / "index.parquet").write_bytes(plan.index.to_parquet())
start = time.process_time()
index = SequenceIndex.read(folder / "index.parquet")
index.number(f"{rows // 2:016x}")
opened = time.process_time() - start
done.set()
watcher.join()
print(json.dumps({"bytes": peak, "seconds": planned, "opened": opened,
                  "tokens": plan.tokens, "shards": plan.n_shards}))
"""


@pytest.mark.prove
@pytest.mark.timeout(3000)
def test_three_million_rows_are_planned_within_memory_and_time(tmp_path: Path) -> None:
    """Memory is what the process has of its own: pages of mapped files are the system's to take."""
    words = [sys.executable, "-c", CODE, str(ROWS), str(LENGTH), str(tmp_path)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    print(found)
    assert found["tokens"] == ROWS * LENGTH
    assert found["bytes"] < MOST_BYTES
    assert found["seconds"] < MOST_SECONDS
    assert found["opened"] < MOST_TO_OPEN
