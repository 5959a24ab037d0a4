"""A small activation store with several shards, and what tests do to one."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from activation_store.layout.arrays import CANARY_FILE, ROOT_FILE
from activation_store.layout.commit_records import commit_path
from activation_store.layout.config import CaptureConfig
from activation_store.layout.root_record import read_root
from activation_store.model_files.files import ModelFiles
from activation_store.target.capture import Capture
from activation_store.target.config import CompleteConfig
from activation_store.target.replies import CompleteResult, complete
from activation_store.target.reply_batches import ReplyJob
from activation_store.write import dump as dumping
from activation_store.write.dump import DumpResult, dump
from core.progress import Progress, silent
from core.records.table_files import CONVERSATIONS_FILE, write_conversations
from core.records.tables import VIEWS, Conversation, Message, View, example_id
from core.runtime import Runtime

RUNTIME = Runtime(device="cpu", threads=1)
CAPTURE = CaptureConfig(
    layers=(0, 2),
    compute_dtype="float32",
    store_dtype="bfloat16",
    shard_rows=512,
    chunk_rows=64,
    batch_tokens=600,
)


def messages(view: View, control: str, stimulus: str, completion: str) -> tuple[Message, ...]:
    """Return the conversation of one view."""
    said = Message(role="user", content=stimulus, segment="stimulus")
    if view == "control":
        return (Message(role="user", content=control, segment="control"),)
    if view == "system":
        return (Message(role="system", content=control, segment="control"), said)
    first = (
        Message(role="user", content=control, segment="control"),
        Message(role="assistant", content="Fine.", segment="control"),
        said,
    )
    if view == "stimulus":
        return first
    return (*first, Message(role="assistant", content=completion, segment="completion"))


def conversation(number: int, view: View, control: str | None = None) -> Conversation:
    """Return a conversation; another number, other tokens and another length."""
    said = messages(
        view,
        control or f"You are number {number}{'!' * (number % 5)}",
        "Who are you" + "?" * (number % 3),
        f"I am {number}.",
    )
    label = f"label {number}"
    return Conversation(
        example_id=example_id(label, view, said),
        control_id=f"control {number}",
        group_id=f"group {number}",
        kind="persona",
        category="numbers",
        label=label,
        view=view,
        split="train",
        source="test",
        messages=said,
    )


def conversations(controls: int = 6) -> list[Conversation]:
    """Each control in each view."""
    return [conversation(i, view) for i in range(controls) for view in VIEWS]


def table(folder: Path, rows: Iterable[Conversation]) -> Path:
    """Return a folder with the conversations' table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_conversations(folder / CONVERSATIONS_FILE, rows)
    return folder


def fill(
    rows: Path,
    out: Path,
    model: ModelFiles,
    *,
    progress: Progress = silent,
    reusable: Sequence[Path] = (),
    **changes: Any,
) -> DumpResult:
    """Dump `rows` into `out`."""
    torch.set_num_threads(1)
    config = CaptureConfig.model_validate({**CAPTURE.model_dump(), **changes})
    return dump(
        rows,
        out,
        config=config,
        model=model,
        runtime=RUNTIME,
        progress=progress,
        reusable=reusable,
    )


def reply(
    rows: Path, folder: Path, model: ModelFiles, config: CompleteConfig, **more: Any
) -> CompleteResult:
    """Let the target reply to the conversations in `rows`, into folders of `folder`."""
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    job = ReplyJob(
        conversations=rows, work=folder / "work", config=config, model=model, runtime=RUNTIME
    )
    return complete(job, folder / "out", **more)


def contents(root: Path) -> dict[str, bytes]:
    """Return the bytes of every file below `root`, by path."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files(root)}


def files(root: Path) -> list[Path]:
    """Every file below `root`."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def flip(path: Path, at: float = 0.5) -> None:
    """Flip one bit of a file, `at` of its way in, and leave size and time as they were."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x10
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def unfinish(root: Path) -> None:
    """Take from a complete store what a dump writes at its end."""
    (root / ROOT_FILE).unlink()
    (root / CANARY_FILE).unlink()


def uncommit(root: Path, *shards: int) -> None:
    """Make a complete store one whose dump has not come to these shards."""
    unfinish(root)
    for shard in shards:
        commit_path(root, shard).unlink()


def truncate(path: Path) -> None:
    """Cut the second half of a file off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class CountedTokens:
    """Counts, within, the tokens of every forward pass that a dump makes for its rows.

    Its check before the long work is left out.
    """

    def __init__(self, monkeypatch: Any) -> None:
        self.tokens = 0
        plain = Capture.__call__

        def counted(capture: Capture, sequences: Sequence[np.ndarray]) -> dict[int, torch.Tensor]:
            self.tokens += sum(map(len, sequences))
            return plain(capture, sequences)

        monkeypatch.setattr(Capture, "__call__", counted)
        leave_out_first_check(monkeypatch)


def leave_out_first_check(monkeypatch: Any) -> None:
    """Let a dump begin without comparing rows."""
    monkeypatch.setattr(dumping, "check_first", lambda *given: None)


@dataclass(frozen=True)
class Harm:
    """What `corrupt` did.

    Attributes:
        kind: flip, truncate, delete, extra or swap.
        files: the files that are not as they were, by path below the store.
    """

    kind: str
    files: frozenset[str]

    @property
    def shards(self) -> set[int]:
        """Shards with data that is not as it was."""
        data = self.files if self.kind != "extra" else frozenset()
        found = (re.fullmatch(r"acts/L\d+/c\.(\d+)\.0", name) for name in data)
        return {int(match[1]) for match in found if match}

    @property
    def to_compute(self) -> set[int]:
        """Those, and a shard whose record is gone from both places that have it."""
        lost = self.files if "root.json" in self.files else frozenset()
        return self.shards | {int(Path(n).stem) for n in lost if n.startswith("commits/")}


def corrupt(root: Path, draw: random.Random) -> Harm:
    """Do one random harm to a complete store: data, index, metadata or records."""
    kind = draw.choice(["flip", "flip", "truncate", "delete", "extra", "swap"])
    names = sorted(contents(root))
    one, other = (root / name for name in draw.sample(names, 2))
    if kind == "flip":
        data = bytearray(one.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        one.write_bytes(data)
    elif kind == "truncate":
        one.write_bytes(one.read_bytes()[: draw.randrange(one.stat().st_size)])
    elif kind == "delete":
        one.unlink()
    elif kind == "extra":
        one = one.with_name(f"{draw.choice(['', '.'])}left.{draw.choice(['tmp', 'json'])}")
        one.write_bytes(b"{}")
        return Harm("extra", frozenset({one.relative_to(root).as_posix()}))
    else:
        a, b = one.read_bytes(), other.read_bytes()
        if a == b:  # alike, as segments of equal rows may be: no harm
            return corrupt(root, draw)
        one.write_bytes(b)
        other.write_bytes(a)
    harmed = {one, other} if kind == "swap" else {one}
    return Harm(kind, frozenset(path.relative_to(root).as_posix() for path in harmed))


def tokens_of(root: Path, shards: Iterable[int]) -> int:
    """Tokens of some shards of a complete store."""
    commits = read_root(root)[1]
    return sum(commits[shard].tokens for shard in shards)
