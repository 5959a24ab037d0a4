"""Generation of profiles on one core, from a seed to Parquet on disk: rows per second.

Both tables are written as the steps write them: conversations with their facts, and questions of
every grade. Two shapes: one row a control, and a control in three views.

    python benchmarks/profiles.py --rows 100000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig, QuestionsConfig
from generators.making.generation import generate_conversations, generate_questions

VIEWS = (("control",), ("control", "stimulus", "system"))


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="rows of conversations")
    parser.add_argument("--questions", type=int, default=5, help="questions about each")
    words = parser.parse_args()
    print("| views | rows | questions | conversations, s | questions, s | rows/s | MB |")
    print("|---|---|---|---|---|---|---|")
    for views in VIEWS:
        plan = {"controls": -(-words.rows // len(views)), "views": views}
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            session = LLMSession(log=out / "unused")
            start = time.perf_counter()
            made = generate_conversations(
                out,
                session,
                config=ConversationsConfig.model_validate({"kinds": {"profile": plan}}),
            )
            middle = time.perf_counter()
            asked = generate_questions(
                out,
                out / "questions",
                session,
                config=QuestionsConfig(per_control=words.questions),
            )
            end = time.perf_counter()
            size = sum(path.stat().st_size for path in out.rglob("*.parquet")) / 1e6
        rows = made["examples"]
        print(
            f"| {', '.join(views)} | {rows:,} | {asked['questions']:,} | {middle - start:.1f} | "
            f"{end - middle:.1f} | {rows / (end - start):,.0f} | {size:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
