"""`latentqa show`: a summary of an artifact or a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from core.text.wording import duration, size
from latentqa.api import open_refs
from latentqa.commands.stored.artifacts import artifact_document
from latentqa.terminal.options import DEFAULT_ROOT, JsonOption, RefArgument, RootOption
from latentqa.terminal.printing import print_json, say
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.cache_key import SHORT, leaves
from pipelines.artifacts.refs import holders

KINDS = {
    "conversations": "controls and stimuli",
    "questions": "questions and answers about the controls",
    "complete": "conversations with the target's own replies",
    "quality": "checked questions",
    "dump": "an activation store",
    "train": "a trained decoder",
    "train_prior": "a baseline decoder, trained on other controls' activations",
    "train_visible_text": "a baseline decoder, trained on the visible tokens alone",
    "train_text": "a baseline decoder, trained on the controls' text",
    "evaluate": "the evaluation of a decoder",
    "judge": "an LLM's judgement of written answers",
    "robustness": "a decoder's robustness to changes",
    "tasks": "reading tasks of a decoder, beside other methods",
    "judge_tasks": "an LLM's judgement of what was written about hidden prompts",
    "control": "a steered target, judged",
    "judge_control": "an LLM's judgement of steered replies",
    "report": "a report",
}
"""What an artifact of each kind is."""

_TOLD = {
    "conversations": ("controls", "examples", "by_split", "dropped"),
    "questions": ("questions", "by_type", "dropped"),
    "dump": ("sequences", "tokens", "layers", "d_model", "store_dtype", "dropped"),
    "train": ("rows", "questions", "steps", "best_step", "untrained_validation", "validation"),
}
"""The counts of a step that the summary of a run shows, in this order."""
_FACTS = 8
"""Most counts that a line shows of an artifact by itself."""


def show(ref: RefArgument, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Summarise an artifact or a run: its model, its verdict and its report.

    --json has the full identity and record of each artifact.
    """
    refs = open_refs(root)
    names = holders(refs.names())
    found = refs.resolve_set(ref)
    if as_json:
        print_json(
            [
                {**artifact_document(a, names), "identity": a.identity, "record": a.record}
                for a in found.values()
            ]
        )
    elif len(found) == 1:
        _show_artifact(next(iter(found.values())), names)
    else:
        _show_run(ref, found)


def _show_run(ref: str, found: Mapping[str, Artifact]) -> None:
    total = size(sum(artifact.size for artifact in found.values()))
    say(f"{ref}: a run of {len(found)} steps, {total}")
    _row("model", _model(found.values()))
    for kind in ("conversations", "questions", "dump", "train"):
        if kind in found:
            _row(kind, _facts(_told(kind, found[kind].record["counts"])))
    _print_verdict(found)
    for kind, artifact in found.items():
        spent = duration(artifact.record.get("seconds", 0.0))
        _row("step", f"{artifact.short}  {size(artifact.size)}, {spent}, {KINDS.get(kind, kind)}")


def _show_artifact(artifact: Artifact, names: Mapping[str, list[str]]) -> None:
    record = artifact.record
    say(f"{artifact.short}: {KINDS.get(artifact.kind, artifact.kind)}")
    _row("model", _model([artifact]))
    _row("made", _made(record, duration(record.get("seconds", 0.0))))
    _row("files", f"{len(record['files'])}, {size(artifact.size)}, in {artifact.data}")
    _row("names", ", ".join(names.get(f"{artifact.kind}/{artifact.key}", [])) or "none")
    _row("made from", ", ".join(_inputs(artifact)))
    _row("counts", _facts(record["counts"], most=_FACTS))
    _row("settings", _facts(artifact.identity["config"]))
    _print_verdict({artifact.kind: artifact})


def _print_verdict(found: Mapping[str, Artifact]) -> None:
    from pipelines.reports.run.claims import assess_reading, headline
    from pipelines.reports.run.evaluation import readings_of

    if "evaluate" in found:
        evaluate = found["evaluate"]
        readings = readings_of(evaluate.record["counts"].get("reading") or {})
        claims = [assess_reading(reading) for reading in readings]
        least = evaluate.identity["config"].get("min_controls", 0)
        _row("verdict", headline(readings, claims, least=least))
        for claim in claims:
            _row("", f"{claim.view} ({claim.split}): {claim.sentence}")
    if "tasks" in found:
        from evaluators.tasks.metrics import TasksMetrics
        from pipelines.reports.run.sections.tasks import task_page

        measured = TasksMetrics.model_validate(found["tasks"].record["counts"])
        for name, sentence in task_page(measured).in_short:
            _row("task", f"{name}: {sentence}")
    if "control" in found:
        from evaluators.control.metrics import ControlMetrics
        from pipelines.reports.run.sections.control import control_page

        steered = ControlMetrics.model_validate(found["control"].record["counts"])
        page = control_page(steered)
        _row("steering", page.headline)
        for name, sentence in page.in_short:
            _row("", f"{name}: {sentence}")
    if "report" in found:
        report = found["report"]
        _row("report", str(report.data / report.record["counts"]["page"]))


def _row(title: str, text: str | None) -> None:
    if text:
        say(f"  {title:<14} {text}")


def _model(artifacts: Collection[Artifact]) -> str | None:
    """Name the target, as the last of the artifacts that read it was given it, and its blocks."""
    # as they were read: a config may name a block by its depth
    read = [a.record["counts"]["layers"] for a in artifacts if a.record["counts"].get("layers")]
    blocks = f", block{'s' * (len(read[0]) > 1)} {', '.join(map(str, read[0]))}" if read else ""
    for artifact in reversed(list(artifacts)):
        where = artifact.record.get("locations") or {}
        if where.get("model"):
            adapter = f" with adapter {where['adapter']}" if where.get("adapter") else ""
            return f"{where['model']}{adapter}{blocks}"
    return None


def _made(record: Mapping[str, Any], spent: str) -> str:
    git = record.get("git") or {}
    code = f", code {git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git else ""
    return f"{str(record.get('created', ''))[:19].replace('T', ' ')} in {spent}{code}"


def _inputs(artifact: Artifact) -> Iterator[str]:
    for role, made in artifact.identity["inputs"].items():
        yield f"{role}/{made['key'][:SHORT]}"


def _told(kind: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: counts[name] for name in _TOLD[kind] if name in counts}
    return {
        name: f"({_facts(value)})" if isinstance(value, Mapping) and value else value
        for name, value in found.items()
    }


def _facts(values: Mapping[str, Any], *, most: int | None = None) -> str:
    """List the plain values of a document, `name value` each, with dots for sections."""
    facts = [f"{name} {value}" for name, value in _plain(values)]
    more = "" if most is None or len(facts) <= most else ", …"
    return ", ".join(facts[:most]) + more


def _plain(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in leaves(values):
        if isinstance(value, (list, tuple)):
            if value and all(isinstance(item, (str, int, float)) for item in value):
                yield name, ",".join(map(str, value))
        elif isinstance(value, float):
            yield name, f"{value:.4g}"
        elif value is not None and value != {}:
            yield name, value
