"""The step `control`: steer a target towards controls in several ways, and judge each fairly.

Every method makes itself from the same prompts, is tried at as many strengths on the same
validation prompts, and is judged once, on test prompts, at the strength that was chosen there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from activation_store.model_files.files import ModelFiles
from activation_store.target.load import use_threads
from core.documents.canonical import digest
from core.files import storage_errors, write_bytes, write_json
from core.progress import Progress, silent
from core.records.estimate import Estimate
from core.records.steering_control import SteeringControl, write_control
from core.runtime import Runtime
from decoder.model import Decoder
from decoder.steering.replies import Steering
from evaluators.control.config import ControlSection, Method
from evaluators.control.crows_pairs import SentencePair, measure_bias, read_pairs
from evaluators.control.judge import ControlJudge, Judged, resampling_of
from evaluators.control.methods import (
    SFT,
    MethodMaker,
    SteeringMethod,
    describe_training,
)
from evaluators.control.metrics import (
    BiasResult,
    ControlMetrics,
    ControlResult,
    MethodResult,
    StrengthPoint,
)
from evaluators.control.prompts import PromptSets, draw_prompts
from evaluators.control.readability import measure_readability
from evaluators.control.result_files import CONTROL_FILE, REPLIES, REPLIES_FILE
from evaluators.control.result_rows import control_rows
from evaluators.measure.partial_results import PartialResultCache
from evaluators.measure.result_files import RESULTS, RESULTS_FILE, write_table
from trainers.steering.adapter import STEER, remove_steering_adapter, save_steering_adapter

_LOG = logging.getLogger(__name__)
_ADAPTERS = {"weights": STEER, "sft": SFT}
_TIMES: Any = {"controls": {"__all__": {"methods": {"__all__": {"seconds"}}}}}


def evaluate_control(
    decoder: Path,
    model: ModelFiles,
    out: Path,
    work: Path,
    *,
    controls: Sequence[SteeringControl],
    config: ControlSection,
    runtime: Runtime,
    progress: Progress = silent,
) -> ControlMetrics:
    """Steer the target of a decoder towards controls, and judge what comes of it.

    An interrupted run goes on from the methods that are done.

    Args:
        decoder: folder of the decoder.
        model: its target.
        out: receives control.json, replies.parquet, results.parquet, and of each control its file,
            vectors (safetensors) and adapters (peft folders).
        work: keeps finished methods.
        controls: what the target is to become.
        config: how.
        runtime: device and threads.
        progress: told the methods that are done.

    Raises:
        StoreError: `model` is not the decoder's target.
        DataError: there are fewer prompts than asked for, or the file of CrowS-Pairs cannot be
            read.
    """
    use_threads(runtime)
    loaded = Decoder.load(decoder, model, config.compute_dtype, runtime)
    loaded.ask_layer(config.read_layer, "control.read_layer")
    prompts = draw_prompts(config)
    pairs = None
    if config.crows_pairs is not None:
        path = Path(config.crows_pairs).expanduser()
        pairs = read_pairs(path, most=config.crows_rows, seed=config.seed)
    total = len(controls) * len(config.methods)
    found: dict[str, ControlResult] = {}
    rows: list[dict[str, Any]] = []
    with storage_errors(out):
        for place, control in enumerate(controls):
            study = _Study(loaded, control, prompts, pairs, config, work)

            def tell(done: int, place: int = place) -> None:
                progress(place * len(config.methods) + done, total, "methods")

            found[control.control] = study.run(out / control.control, tell)
            rows += study.rows
        metrics = ControlMetrics(
            prompts={
                "train": len(prompts.train),
                "validation": len(prompts.validation),
                "test": len(prompts.test),
            },
            controls=found,
        )
        # times are for the record: with them no two runs of a key would have one output
        write_json(out / CONTROL_FILE, metrics.model_dump(mode="json", exclude=_TIMES))
        write_table(out / REPLIES_FILE, rows, REPLIES)
        write_table(out / RESULTS_FILE, control_rows(metrics), RESULTS)
    return metrics


class _Study:
    """All methods for one control."""

    def __init__(
        self,
        decoder: Decoder,
        control: SteeringControl,
        prompts: PromptSets,
        pairs: Sequence[SentencePair] | None,
        config: ControlSection,
        work: Path,
    ) -> None:
        self._decoder, self._control, self._config = decoder, control, config
        self._prompts, self._pairs, self._work = prompts, pairs, work
        self._cache = PartialResultCache(work)
        self._maker = MethodMaker(decoder, control, prompts, config)
        self._validation = ControlJudge(decoder, control, prompts.validation, config)
        self._test = ControlJudge(decoder, control, prompts.test, config)
        self.rows: list[dict[str, Any]] = []

    def run(self, out: Path, tell: Any) -> ControlResult:
        """Steer by every method and judge the replies; write vectors and adapters into `out`."""
        config = self._config
        readability = measure_readability(
            self._decoder,
            self._control,
            [*self._prompts.validation, *self._prompts.test],
            resampling_of(config),
        )
        if not readability.readable:
            _LOG.warning(
                "control %s: the decoder does not read it from a target that is told it (margin %s "
                "nats a token); its gradient can hardly steer towards it.",
                self._control.control,
                readability.margin,
            )
        if readability.readable and readability.at_chance:
            _LOG.warning(
                "control %s: closed answers are at chance (%s, chance %.2f): the decoder does not "
                "tell it from its alternatives.",
                self._control.control,
                readability.accuracy,
                readability.chance,
            )
        for pair in readability.opposed:
            _LOG.warning(
                "control %s: contradictory gradients: %s; their steps cancel out. Reword one.",
                self._control.control,
                pair,
            )
        out.mkdir(parents=True, exist_ok=True)
        write_control(out / "control.yaml", self._control)
        plain = self._test.unsteered
        self.rows += self._reply_rows("none", 0.0, plain)
        methods = {}
        for done, name in enumerate(config.methods):
            methods[name] = self._method(name, out)
            tell(done + 1)
        return ControlResult(
            readability=readability,
            unsteered=self._test.effects(plain, self._maker.plain_prompt, Steering()),
            unsteered_bias=self._bias(Steering()),
            methods=methods,
        )

    def _method(self, name: Method, out: Path) -> MethodResult:
        subject = [self._control.model_dump(mode="json"), name]
        part = digest(subject)[:16]
        kept = self._work / part
        if (known := self._cache.load(part, subject)) is not None:
            result, rows = known
            self.rows += rows
            _copy_files(kept, out)
            return MethodResult.model_validate(result)
        start = time.monotonic()
        method = self._maker.make(name)
        for note in method.notes:  # before its strengths are tried, which takes longest
            _LOG.warning("control %s, %s: %s.", self._control.control, name, note)
        kept.mkdir(parents=True, exist_ok=True)
        self._save(method, kept)
        found, rows = self._judge(method)
        found = found.model_copy(update={"seconds": round(time.monotonic() - start, 1)})
        for adapter in _ADAPTERS.values():
            remove_steering_adapter(self._decoder, adapter)
        _copy_files(kept, out)
        self._cache.store(part, subject, [found.to_json(), rows])
        self.rows += rows
        return found

    def _judge(self, method: SteeringMethod) -> tuple[MethodResult, list[dict[str, Any]]]:
        curve = []
        for strength in method.strengths:
            with method.at(strength) as steering:
                judged = self._validation.judge(method.prompt_maker(strength), steering)
            curve.append(self._validation.point(strength, judged))
        chosen = choose_strength(curve)
        judge, base = self._test, self._test.unsteered
        maker = method.prompt_maker(chosen.strength)
        wording = method.wordings[int(chosen.strength) - 1] if method.wordings else None
        with method.at(chosen.strength) as steering:
            judged = judge.judge(maker, steering)
            effects = judge.effects(judged, maker, steering)
            bias = None
            if method.name != "activations":  # a vector stands for it: no prompt to take it from
                bias = self._bias(steering, before=wording or "")
        adherence = Estimate()
        if judged.adherence is not None and base.adherence is not None:
            adherence = judge.paired(judged.adherence, base.adherence)
        return MethodResult(
            strength=chosen.strength,
            chosen_harmless=chosen.harmless,
            adherence=adherence,
            likelihood=judge.paired(judged.likelihood, base.likelihood),
            effects=effects,
            bias=bias,
            curve=curve,
            training=describe_training(method),
            wording=wording,
            notes=method.notes,
        ), self._reply_rows(method.name, chosen.strength, judged)

    def _bias(self, steering: Steering, *, before: str = "") -> BiasResult | None:
        if self._pairs is None:
            return None
        draw = resampling_of(self._config)
        return measure_bias(self._decoder, self._pairs, steering, draw=draw, before=before)

    def _reply_rows(self, name: str, strength: float, judged: Judged) -> list[dict[str, Any]]:
        scores = judged.adherence
        return [
            {
                "control": self._control.control,
                "method": name,
                "strength": strength,
                "prompt": said,
                "reply": text,
                "adherence": None if scores is None else float(scores[i]),
                "likelihood": float(judged.likelihood[i]),
            }
            for i, (said, text) in enumerate(zip(self._prompts.test, judged.texts, strict=True))
        ]

    def _save(self, method: SteeringMethod, out: Path) -> None:
        if method.vector is not None:
            method.vector.save(out / f"{method.name}.safetensors")
        if method.name in _ADAPTERS:
            about = {"control": self._control.control, "training": describe_training(method)}
            save_steering_adapter(
                self._decoder, out / method.name, about, name=_ADAPTERS[method.name]
            )


def choose_strength(curve: Sequence[StrengthPoint]) -> StrengthPoint:
    """Choose the strength with the highest adherence among the harmless ones.

    Of equal ones, as of a language that no reply is in yet, the one with the highest likelihood.
    Where none is harmless, the one whose perplexities grow least is chosen.
    """
    harmless = [point for point in curve if point.harmless]
    if harmless:
        return max(harmless, key=lambda p: (p.adherence or 0.0, p.likelihood))
    return min(curve, key=lambda p: max(p.own_perplexity, p.ordinary_perplexity))


def _copy_files(folder: Path, out: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = out / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, path.read_bytes())
