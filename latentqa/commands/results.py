"""`latentqa results`: the numbers of an evaluated run as Markdown tables."""

from __future__ import annotations

import json

from latentqa.terminal.options import DEFAULT_ROOT, JsonOption, RefArgument, RootOption
from latentqa.terminal.printing import report


def results(ref: RefArgument, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Print losses by condition and gains of each split and view, then robustness, as Markdown.

    Intervals are 95 % bootstrap intervals over controls.
    """
    from evaluators.measure.metrics import RobustnessMetrics
    from evaluators.measure.result_files import METRICS_FILE, ROBUSTNESS_FILE
    from pipelines.artifacts.refs import Refs
    from pipelines.artifacts.root import ArtifactRoot
    from pipelines.reports.run.robustness import robustness_tables
    from pipelines.reports.run.tables import reading_tables

    refs = Refs(ArtifactRoot(root.expanduser()))
    evaluated = refs.resolve(ref, "evaluate")
    robust = refs.resolve_set(ref).get("robustness")
    reading = json.loads((evaluated.data / METRICS_FILE).read_text())["reading"]
    tables, document = [reading_tables(reading)], {"reading": reading}
    if robust is not None:
        document["robustness"] = json.loads((robust.data / ROBUSTNESS_FILE).read_text())
        tables.append(robustness_tables(RobustnessMetrics.from_json(document["robustness"])))
    report(as_json, document, "\n\n".join(tables))
