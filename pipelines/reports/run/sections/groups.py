"""The same numbers over parts of the questions: by kind, category, type, and single questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.records.estimate import Estimate
from core.records.result_table import ResultTable
from core.records.tables import SPLITS, VIEWS
from core.text.text_tables import markdown
from core.text.wording import ABSENT, join, sort_known
from evaluators.breakdowns import LEAST_ASKED, group_metrics
from evaluators.config import EvaluateConfig
from evaluators.measure.metrics import PanelMetrics
from evaluators.measure.result_files import ITEMS_FILE, LOSSES_FILE, read_rows

GroupTree = Mapping[str, Mapping[str, Mapping[str, PanelMetrics]]]
"""Panels by split, view and group."""
_HIDDEN = (
    *("right", "swapped", "prior", "visible_text"),
    *("hidden gain", "below rivals", "closed: right", "closed: swapped"),
)
_VISIBLE = ("right", "other", "below untrained", "grounded gain", "information gain")
_VERDICTS = {True: "yes", False: "not shown", None: ABSENT}
_FEW = 12
"""Groups up to which a table has those without an interval too."""


@dataclass(frozen=True, slots=True)
class Group:
    """Some questions of a split and view.

    Attributes:
        name: such as `question=Who speaks?`.
        n: controls that they are about.
        values: numbers in the order of the table's columns; None where one was not measured.
        read: whether the claim of reading holds here, as for the whole view; None where it was not
            held against rivals, or is of too few controls.
    """

    name: str
    n: int
    values: tuple[Estimate | None, ...]
    read: bool | None = None

    @property
    def has_interval(self) -> bool:
        """Whether there are enough controls for one."""
        return any(value is not None and value.low is not None for value in self.values)


@dataclass(frozen=True, slots=True)
class GroupTable:
    """The groups of one split and view, with what was measured of them."""

    split: str
    view: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def hidden(self) -> bool:
        """Whether the control is hidden here."""
        return "hidden gain" in self.columns

    @property
    def by_question(self) -> str:
        """Say which questions the claim of reading holds for; empty where that is not known."""
        parts = []
        for verdict, wanted in (("shown", True), ("not shown", False)):
            asked = [
                f"“{group.name.removeprefix('question=')}”"
                for group in self.groups
                if group.read is wanted and group.name.startswith("question=")
            ]
            if asked:
                parts.append(f"{verdict} for {join(asked)}")
        return f"By question: {'; '.join(parts)}." if parts else ""

    def of(self, groups: Sequence[Group]) -> ResultTable:
        """Collect the numbers of some of its groups."""
        return ResultTable(
            head=("group", "n", *self.columns),
            rows=tuple(
                (group.name.replace("=", ": ", 1), group.n, *group.values) for group in groups
            ),
        )

    @property
    def whole(self) -> list[Group]:
        """Groups with an interval."""
        return [group for group in self.groups if group.has_interval]

    @property
    def few(self) -> list[Group]:
        """Groups of too few controls for one."""
        return [group for group in self.groups if not group.has_interval]


def measure_groups(evaluated: Path, config: EvaluateConfig) -> GroupTree:
    """Measure the groups of an evaluation from the files in its folder, without a model.

    Raises:
        DamagedError: one of them cannot be read.
    """
    losses = read_rows(_file(evaluated, LOSSES_FILE))
    return group_metrics(losses, read_rows(_file(evaluated, ITEMS_FILE)), config)


def group_tables(tree: GroupTree) -> list[GroupTable]:
    """Lay the groups out, a table a split and view.

    Where something is hidden a table shows what tells reading apart, else the checks of the
    instrument. A grouping into a single kind, category or type is left out.
    """
    tables = []
    for split in sort_known(tree, SPLITS):
        for view in sort_known(tree[split], VIEWS):
            groups = _told_apart(tree[split][view])
            hidden = any(metrics.hidden_gain is not None for metrics in groups.values())
            values = {name: _values(metrics) for name, metrics in groups.items()}
            columns = tuple(
                column
                for column in (_HIDDEN if hidden else _VISIBLE)
                if any(own.get(column) is not None for own in values.values())
            )
            found = tuple(
                Group(
                    name,
                    metrics.grounded_gain.n,
                    tuple(values[name].get(c) for c in columns),
                    _is_read(metrics),
                )
                for name, metrics in groups.items()
            )
            if found:
                tables.append(GroupTable(split, view, columns, found))
    return tables


def markdown_groups(tree: GroupTree) -> str:
    """Write the groups as Markdown, views that hide the control first; empty without groups."""
    tables = group_tables(tree)
    parts = []
    for hidden in (True, False):
        chosen = [table for table in tables if table.hidden == hidden]
        names = list(dict.fromkeys(column for table in chosen for column in table.columns))
        lines = [line for table in chosen for line in _lines(table, names)]
        if lines:
            head = ["split", "view", "group", "n", *names, *(["read"] if hidden else [])]
            parts += ["By group, in nats per token:", markdown(head, lines)]
    left_out = sum(len(table.groups) - len(_shown(table)) for table in tables)
    if left_out:
        parts.append(f"{left_out} groups have too few controls for an interval; --json lists them.")
    if parts and any("question=" in group.name for table in tables for group in table.groups):
        parts.append(f"Only questions asked of at least {LEAST_ASKED} controls are shown.")
    return "\n\n".join(parts)


def _lines(table: GroupTable, names: list[str]) -> Iterator[list[str]]:
    for group in _shown(table):
        values = dict(zip(table.columns, group.values, strict=True))
        texts = [str(values.get(name) or ABSENT) for name in names]
        name = group.name.replace("=", ": ", 1)
        verdict = [_VERDICTS[group.read]] if table.hidden else []
        yield [table.split, table.view, name, str(group.n), *texts, *verdict]


def _shown(table: GroupTable) -> list[Group]:
    """Return the groups of a table in a terminal: all of a few, else those with an interval."""
    return list(table.groups) if len(table.groups) <= _FEW else table.whole


def _told_apart(groups: Mapping[str, PanelMetrics]) -> dict[str, PanelMetrics]:
    sizes = Counter(name.partition("=")[0] for name in groups)
    return {
        name: metrics
        for name, metrics in groups.items()
        if (grouping := name.partition("=")[0]) == "question" or sizes[grouping] > 1
    }


def _values(metrics: PanelMetrics) -> dict[str, Estimate | None]:
    """Return the numbers of a group by column."""
    accuracy = {} if metrics.identification is None else metrics.identification.accuracy
    gains = ("hidden_gain", "below_rivals", "below_untrained", "grounded_gain", "information_gain")
    return {
        **metrics.answer_loss,
        **{name.replace("_", " "): getattr(metrics, name) for name in gains},
        **{f"closed: {name}": value for name, value in accuracy.items()},
    }


def _is_read(metrics: PanelMetrics) -> bool | None:
    """Tell whether the claim of reading holds; None where its numbers or intervals are missing."""
    needed = (metrics.hidden_gain, metrics.below_rivals)
    if any(gain is None or gain.low is None for gain in needed):
        return None
    return all(gain is not None and gain.above_zero for gain in needed)


def _file(folder: Path, name: str) -> Path | None:
    path = folder / name
    return path if path.is_file() else None


def groups_json(tree: GroupTree) -> dict[str, Any]:
    """Return the groups as a JSON document: split, view, group, metrics."""
    return {
        split: {
            view: {name: metrics.to_json() for name, metrics in groups.items()}
            for view, groups in views.items()
        }
        for split, views in tree.items()
    }
