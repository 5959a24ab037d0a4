"""Several processes that train one decoder: the same rows, the same losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chain
import pytest
import torch
from safetensors.torch import load_file

from core.processes.launch import run_distributed
from core.progress import Progress, silent
from decoder.config import LoraSettings
from trainers.config import TrainConfig
from trainers.training import TrainResult, train

CONFIG = TrainConfig(
    lora=LoraSettings(rank=4),
    views=("control",),
    max_rows=12,
    rows_per_batch=4,
    accumulation=1,
    epochs=2,
    evaluations=2,
    learning_rate=1e-2,
    micro_batch_tokens=250,
)
"""12 rows: 3 steps a pass, of 2 rows a process."""

SCRIPT = """
import json, sys
from pathlib import Path
import chain, test_together
from accelerate import PartialState
made = chain.Chain(**{k: Path(v) for k, v in json.loads(sys.argv[1]).items()}, model=None)
made = chain.Chain(**{**vars(made), "model": chain.resolve_model(sys.argv[2])})
test_together.plain(made, Path(sys.argv[3]), seen=True)
"""


def plain(made: chain.Chain, folder: Path, *, seen: bool = False) -> TrainResult:
    """Train as the environment says; `seen` leaves each process's order of rows behind."""
    torch.set_num_threads(1)
    if seen:
        from trainers.data.dataset import RowDataset

        take = RowDataset.__getitem__

        def taken(self: RowDataset, at: Any) -> Any:
            if isinstance(at, tuple):
                with (folder / f"rows-{os.environ['RANK']}").open("a") as file:
                    file.write(f"{at[1]} {self.rows[at[0]].example_id}\n")
            return take(self, at)

        RowDataset.__getitem__ = taken  # type: ignore[method-assign]
    return train(*made.places(folder), config=CONFIG, runtime=chain.RUNTIME)


def together(made: chain.Chain, folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Train in one of several processes."""
    plain(made, folder, seen=True)
    return {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    rows = chain.rows_of(splits={"train": 16, "validation": 2})
    return chain.make(tmp_path_factory.mktemp("chain"), rows)


@pytest.fixture(scope="module")
def alone(made: chain.Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    plain(made, folder)
    return folder


def assert_same(folder: Path, alone: Path) -> None:
    assert chain.losses(folder) == pytest.approx(chain.losses(alone), rel=1e-4)
    one, other = (load_file(f / "out" / "adapter_model.safetensors") for f in (alone, folder))
    for name, values in one.items():
        torch.testing.assert_close(other[name], values, rtol=1e-2, atol=1e-4)


def by_latentqa(made: chain.Chain, folder: Path) -> None:
    """Train in two processes that core/processes/launch.py starts."""
    with chain.forked_processes():
        run_distributed(together, 2, made, folder, progress=silent)


def by_accelerate(made: chain.Chain, folder: Path) -> None:
    """Train in two processes that `accelerate launch` starts."""
    (folder / "script.py").write_text(SCRIPT)
    tables = {k: str(getattr(made, k)) for k in ("conversations", "questions", "store")}
    tests = Path(__file__).parents[2]
    paths = [str(tests.parent), str(tests), str(Path(__file__).parent)]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
    ]
    command += ["--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    command += [str(folder / "script.py"), json.dumps(tables), str(made.model.source)]
    done = subprocess.run(
        [*command, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "launch", [by_latentqa, pytest.param(by_accelerate, marks=pytest.mark.prove)]
)
def test_two_processes_train_as_one_on_the_same_subset(
    made: chain.Chain, alone: Path, tmp_path: Path, launch: Callable[[chain.Chain, Path], None]
) -> None:
    launch(made, tmp_path)
    assert_same(tmp_path, alone)
    for one_pass in ("0", "1"):
        mine, theirs = (
            {
                line.split()[1]
                for line in (tmp_path / f"rows-{rank}").read_text().splitlines()
                if line.startswith(f"{one_pass} ")
            }
            for rank in (0, 1)
        )
        assert len(mine) == len(theirs) == 6
        assert not mine & theirs
