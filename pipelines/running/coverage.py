"""Which splits and views have rows: whether all steps of a run can do their work.

It is known before an LLM is paid: of the plan before its first request, and of the rows that were
kept before anything is made of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from core.errors import ConfigError, DataError
from generators.making.config import ConversationsConfig
from pipelines.experiment.config import Experiment

_COMPARED = 2
"""Controls of a kind and a split of which one can be compared with the other."""
_ADVICE = "Plan more controls, change the splits or views, or run --until {step}."


def check_plan(experiment: Experiment, steps: Collection[str]) -> str | None:
    """Check that the rows that an experiment plans are of splits and views that its steps use.

    Args:
        experiment: the experiment; one that imports its rows is not checked.
        steps: names of the steps that are to run.

    Returns:
        A line where training cannot choose among its checkpoints, or an evaluation has no second
        control to compare with; else None.

    Raises:
        ConfigError: none are there to train on or to judge.
    """
    if experiment.generate is None or experiment.data is not None:
        return None
    config = experiment.generate.conversations
    found = _planned(config)
    if gap := _find_gap(found, experiment, steps):
        planned = ", ".join(f"{plan.controls} of {name}" for name, plan in config.kinds.items())
        raise ConfigError(
            f"generate.conversations.kinds: of the planned controls ({planned}) {gap}"
        )
    said = []
    if "train" in steps and not any(split == "validation" for split, _ in found):
        said.append("none is for validation, so that training keeps its last checkpoint")
    judged = [n for (split, _), n in found.items() if split in experiment.evaluate.splits]
    if "evaluate" in steps and max(judged) < _COMPARED:
        said.append(
            "at most one of a kind is for testing, so that nothing can be judged: it is compared "
            "with another of its kind"
        )
    return f"Of the planned controls {', and '.join(said)}. Plan more." if said else None


def check_table(
    folder: Path, experiment: Experiment, steps: Collection[str], *, replied: bool
) -> None:
    """Likewise of the conversations that were made.

    Args:
        folder: of the table.
        experiment: the experiment.
        steps: names of the steps that are to run.
        replied: whether the target's replies that were kept are among them.

    Raises:
        DataError: none are there to train on or to judge.
    """
    # a rerun with nothing changed does without
    import pyarrow.parquet as pq

    from core.records.table_files import CONVERSATIONS_FILE

    path = folder / CONVERSATIONS_FILE
    if not path.is_file():
        return
    table = pq.read_table(path, columns=["split", "view"])
    found = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if gap := _find_gap(found, experiment, steps, replied=replied):
        raise DataError(f"{folder}: of its {table.num_rows} conversations {gap}")


def _planned(config: ConversationsConfig) -> Counter[tuple[str, str]]:
    """Count the controls of one kind, at most, of each split and view if all that are planned are
    kept.
    """
    from generators.kinds import drawn_kinds, get_kind
    from generators.splits import split_sizes

    found: Counter[tuple[str, str]] = Counter()
    in_order = drawn_kinds(config.kinds)
    held_out = {category.partition("/")[0] for category in config.splits.test_ood}
    for name, plan in config.kinds.items():
        sizes = split_sizes(plan.controls, config.splits, in_order=name in in_order)
        if name in held_out:
            sizes["test_ood"] = plan.controls
        if config.splits.stimuli and plan.stimuli > 1:
            sizes["test_seen"] = sizes["train"]
        views = plan.views or get_kind(name).views
        found |= Counter({(split, view): n for split, n in sizes.items() for view in views})
    return found


def _find_gap(
    found: Collection[tuple[str, str]],
    experiment: Experiment,
    steps: Collection[str],
    *,
    replied: bool = False,
) -> str | None:
    """Say which step has no row; None where each has some.

    Args:
        found: splits and views that there are.
        experiment: what it trains on and judges.
        steps: names of the steps that are to run.
        replied: whether the target's replies are among them, if there are any.
    """
    wanted = {
        "train": (("train",), experiment.train.views),
        "evaluate": (experiment.evaluate.splits, experiment.evaluate.views),
    }
    replies = experiment.complete is not None and not replied
    completed = {(split, "stimulus_completion") for split, _ in found if replies}
    earlier = "questions"
    for step, (splits, views) in wanted.items():
        has_any = any(split in splits and view in views for split, view in {*found, *completed})
        if step in steps and not has_any:
            return (
                f"none is left for {step} (splits {', '.join(splits)}; views {', '.join(views)}). "
                f"{_ADVICE.format(step=earlier)}"
            )
        earlier = step
    return None
