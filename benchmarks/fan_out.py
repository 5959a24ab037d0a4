"""A dump on 1, 2 and 4 processes of one thread each: tokens per second, and equal bytes.

Whole is the dump from its call to the finished store, the start of the processes and the canary
included; steady is what is written between the first and the last shard that is reported.

    python benchmarks/fan_out.py --rows 600
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from activation_store.layout.config import CaptureConfig
from activation_store.layout.root_record import root_digest
from activation_store.model_files.files import resolve_model
from activation_store.write.dump import dump
from core.runtime import Runtime
from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig
from generators.making.generation import generate_conversations


class Clock:
    """Notes when tokens are done."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if done and (not self.seen or done > self.seen[-1][1]):
            self.seen.append((time.perf_counter(), done))

    @property
    def steady(self) -> float:
        """Tokens a second between the first and the last word of progress; nan for one word."""
        (start, before), (end, after) = self.seen[0], self.seen[-1]
        return (after - before) / (end - start) if end > start else float("nan")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600, help="conversations")
    parser.add_argument("--model", default="embedded", help="the target")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--task-runner", choices=["processes", "threads"], default="processes")
    words = parser.parse_args()
    model = resolve_model(words.model)
    config = CaptureConfig(layers=(14 if words.model == "embedded" else -1,), shard_rows=1024)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        rows.mkdir()
        generate_conversations(
            rows,
            LLMSession(log=rows / "unused"),
            config=ConversationsConfig.model_validate(
                {"kinds": {"profile": {"controls": words.rows, "views": ["control"]}}}
            ),
        )
        print(f"{words.model}, {words.rows} rows, {os.cpu_count()} cores, {words.task_runner}\n")
        print("| processes | whole, s | whole, tokens/s | ratio | steady, tokens/s | ratio |")
        print("|---|---|---|---|---|---|")
        first: tuple[float, float] | None = None
        digests = set()
        for workers in words.workers:
            out = Path(folder) / f"store-{workers}"
            runtime = Runtime(
                device="cpu", threads=1, workers=workers, task_runner=words.task_runner
            )
            clock, start = Clock(), time.perf_counter()
            made = dump(rows, out, config=config, model=model, runtime=runtime, progress=clock)
            seconds = time.perf_counter() - start
            whole = made.tokens / seconds
            first = first or (whole, clock.steady)
            digests.add(root_digest(out))
            print(
                f"| {workers} | {seconds:.1f} | {whole:.0f} | {whole / first[0]:.2f} | "
                f"{clock.steady:.0f} | {clock.steady / first[1]:.2f} |",
                flush=True,
            )
    print(f"\n{'the same root digest' if len(digests) == 1 else 'DIFFERENT ROOT DIGESTS'}")


if __name__ == "__main__":
    main()
