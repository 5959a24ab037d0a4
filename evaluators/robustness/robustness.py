"""The step `robustness`: does the decoder still read a row when something about it is changed?

The decoder stays as it is. A drop is paired by control, and above zero where the change does harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from activation_store.target.load import use_threads
from core.errors import DataError
from core.files import storage_errors, write_json
from core.progress import Progress, silent
from core.runtime import Runtime
from decoder.model import Decoder
from decoder.sources.live import LiveActivations
from decoder.sources.step_inputs import StepInputs
from decoder.sources.target_run import tokenize_readable
from decoder.visible_tokens import ActivationSource
from evaluators.measure.conditions import pair_with_other_controls
from evaluators.measure.metrics import ChangeMetrics, FineTuneMetrics, RobustnessMetrics
from evaluators.measure.partial_results import PartialResultCache
from evaluators.measure.result_files import RESULTS, RESULTS_FILE, ROBUSTNESS_FILE, write_table
from evaluators.measure.result_rows import robustness_rows
from evaluators.measure.slices import EvalSlice, drop_unwritable, select_slices
from evaluators.robustness.change_evaluator import ChangeEvaluator, PairedSlice
from evaluators.robustness.config import RobustnessConfig
from evaluators.robustness.held_out import compare_held_out
from evaluators.robustness.target_finetune import FineTune
from trainers.data.rows import Row, load_rows


def robustness(
    inputs: StepInputs,
    decoder: Path,
    out: Path,
    work: Path,
    *,
    config: RobustnessConfig,
    runtime: Runtime,
    progress: Progress = silent,
) -> RobustnessMetrics:
    """Measure what each alteration, and each strength of a fine-tuned target, costs the decoder.

    Args:
        inputs: tables, store (which says which rows have activations) and target.
        decoder: folder of the decoder.
        out: receives the metrics as JSON, and all numbers as Parquet.
        work: keeps results as they are measured; an interrupted run resumes.
        config: the changes.
        runtime: device and threads.
        progress: receives finished changes.

    Raises:
        DataError: none of the splits has a row.
        StoreError: decoder, store and model do not belong together.
    """
    use_threads(runtime)
    activations = inputs.open_activations(runtime)
    loaded = Decoder.load(decoder, inputs.model, config.compute_dtype, runtime)
    if isinstance(activations, LiveActivations):
        activations.attach_decoder(loaded)
    activations.last_tokens = loaded.config.last_tokens
    rows, _, unwritable = drop_unwritable(
        load_rows(inputs.conversations, inputs.questions, activations), loaded.prompt, config.rows
    )
    slices = select_slices(rows, config.rows, loaded.config.masking, unwritable)
    if not slices:
        raise DataError(
            f"robustness: no row in splits {', '.join(config.splits)} and views "
            f"{', '.join(config.views)}; change robustness.splits or data.splits."
        )
    cache = PartialResultCache(work)
    evaluator = ChangeEvaluator(
        loaded, activations, config, cache, slices=len(slices), progress=progress
    )
    paired = [_pair(eval_slice, activations, config) for eval_slice in slices]
    with storage_errors(out):
        views: dict[str, dict[str, dict[str, ChangeMetrics]]] = {}
        plain_losses: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        for one in paired:
            split, view = one.eval_slice.split, one.eval_slice.name
            found, plain_losses[split, view] = evaluator.evaluate_alterations(one)
            views.setdefault(split, {})[view] = found
        fine_tune = None
        if config.strengths:
            train = [row for row in rows if row.conversation.split == "train"]
            tuned = FineTune(loaded, _tokenize_rows(loaded, train), config)
            for one in paired:
                found = views[one.eval_slice.split][one.eval_slice.name]
                found |= evaluator.evaluate_shifts(one, tuned)
            tuned.remove()
            fine_tune = FineTuneMetrics(losses=tuned.losses)
        metrics = RobustnessMetrics(
            views=views, held_out=compare_held_out(plain_losses, config), fine_tune=fine_tune
        )
        write_json(out / ROBUSTNESS_FILE, metrics.to_json())
        numbers = robustness_rows(metrics, min_controls=config.min_controls)
        write_table(out / RESULTS_FILE, numbers, RESULTS)
    return metrics


def _pair(
    eval_slice: EvalSlice, activations: ActivationSource, config: RobustnessConfig
) -> PairedSlice:
    """Pair the rows of a slice with rows of other controls; those without one are left out."""
    partners = pair_with_other_controls(
        eval_slice.rows,
        eval_slice.pool,
        activations,
        masking=eval_slice.masking,
        seed=config.seed,
    )
    rows = [row for row in eval_slice.rows if row.example_id in partners]
    return PairedSlice(eval_slice=eval_slice, rows=rows, partners=partners)


def _tokenize_rows(decoder: Decoder, rows: Sequence[Row]) -> list[np.ndarray]:
    """Tokenize the training conversations, on which the target is fine-tuned.

    Raises:
        DataError: there are none.
    """
    found = tokenize_readable(decoder, [row.conversation for row in rows])
    if not found:
        raise DataError("robustness: no training row to fine-tune on; change data.splits.")
    return [tokens.ids for tokens in found.values()]
