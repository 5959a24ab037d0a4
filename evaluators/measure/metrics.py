"""The typed model of what an evaluation measured: steps write it as JSON, pages read it.

```
EvaluationMetrics                      metrics.json, and `reading` of `latentqa run --json`
└─ reading[SPLIT][VIEW]: SliceMetrics
   ├─ answer_loss, untrained, grounded_gain, information_gain, ...   nats per token
   ├─ answers[METRIC]: PairedEstimates                                where answers were written
   └─ identification: IdentificationMetrics                           where it was asked for
JudgedMetrics                          judged.json
RobustnessMetrics                      robustness.json
```

Every leaf is an `Estimate`. Views and conditions that were not measured are absent.
"""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from core.documents.document import Document
from core.records.estimate import Estimate
from generators.quality.agreement import Agreement


class Metrics(Document):
    """A part of the model; optional parts that were not measured are left out of the JSON."""

    @model_serializer(mode="wrap")
    def _omit_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = serialize(self)
        return {
            name: value
            for name, value in found.items()
            if value is not None or type(self).model_fields[name].is_required()
        }


class PairedEstimates(Metrics):
    """A measure of answers from the row's own activations and from another control's.

    Attributes:
        right: given the row's own activations.
        other: given another control's.
        difference: right − other, paired by control.
    """

    right: Estimate
    other: Estimate
    difference: Estimate


class IdentificationMetrics(Metrics):
    """How often the decoder finds the gold answer among several by its likelihood.

    Attributes:
        accuracy: by condition.
        chance: accuracy of the best condition or rival that does not see what is hidden.
        hidden_gain: accuracy of `right` less that of `swapped`; in masked views.
        grounded_gain: accuracy of `right` less that of `other`; where nothing is hidden.
        information_gain: accuracy of `right` less chance.
        asked: items.
        left_out: questions that too few other controls were asked.
    """

    accuracy: dict[str, Estimate]
    chance: Estimate
    hidden_gain: Estimate | None = None
    grounded_gain: Estimate | None = None
    information_gain: Estimate
    asked: int
    left_out: int


class PanelMetrics(Metrics):
    """What was measured on a set of questions; losses and gains in nats per token.

    Attributes:
        hidden_gain: swapped − right; the headline of masked views, and absent in others.
        hidden_gain_per_answer: the same in nats of a whole answer.
        position_effect: shifted_positions − right, in masked views.
        below_rivals: the best rival that was trained without what is hidden − right.
        share_recovered: (best rival − right) / (best rival − text).
        control_effect: log-likelihood of completions under their control less that under the
            swapped one, in nats; where rows have completions.
        answer_loss: by condition.
        untrained: the untrained decoder's, given `right` and given `other`.
        grounded_gain: other − right.
        information_gain: the best uninformed condition − right.
        below_untrained: untrained right − right.
        best_uninformed: the rival of the information gain; None where nothing was measured.
        answers: written answers by metric.
        generic: share of written answers that are word for word the same given `swapped`, `other`
            or `none` in place of the row's own activations.
        identification: where it was asked for.
    """

    hidden_gain: Estimate | None = None
    hidden_gain_per_answer: Estimate | None = None
    position_effect: Estimate | None = None
    below_rivals: Estimate | None = None
    share_recovered: Estimate | None = None
    control_effect: Estimate | None = None
    answer_loss: dict[str, Estimate]
    untrained: dict[str, Estimate]
    grounded_gain: Estimate
    information_gain: Estimate
    below_untrained: Estimate
    best_uninformed: str | None
    answers: dict[str, PairedEstimates] | None = None
    generic: dict[str, Estimate] | None = None
    identification: IdentificationMetrics | None = None


class SliceMetrics(PanelMetrics):
    """What was measured on one split and view.

    Attributes:
        excluded: rows that were not measured, by reason; `unwritable` counts questions.
        left_out: conditions that were not measured, with the reason.
        foreign_target: True where the store is another target's than the decoder's own.
    """

    excluded: dict[str, int]
    left_out: dict[str, str] | None = None
    foreign_target: bool | None = None


class TargetIdentity(Metrics):
    """A target by the digests of its files.

    Attributes:
        digests: by name (`weights`, `adapter`, ...).
        model: reference of the model, without folders of a machine; None where it is not known.
        adapter: likewise of its own adapter.
    """

    digests: dict[str, str]
    model: str | None = None
    adapter: str | None = None


class ForeignTarget(Metrics):
    """The targets of decoder and store, where they are two.

    Attributes:
        differs: names of the digests that are not equal.
        decoder: the decoder's own target.
        store: the target that wrote the store.
    """

    differs: tuple[str, ...]
    decoder: TargetIdentity
    store: TargetIdentity


class EvaluationMetrics(Metrics):
    """What the step `evaluate` measured.

    Attributes:
        reading: by split and view.
        foreign_target: where the store is another target's.
    """

    reading: dict[str, dict[str, SliceMetrics]]
    foreign_target: ForeignTarget | None = None


class JudgedSlice(Metrics):
    """Verdicts of a judge on the answers of one split and view.

    Attributes:
        shares: share of questions by verdict.
        agreement: of the two times that an answer was judged.
        unread: questions left out since a reply could not be read.
    """

    shares: dict[str, PairedEstimates]
    agreement: Agreement
    unread: int


class JudgedMetrics(Metrics):
    """What the step `judge` found, by split and view."""

    judged: dict[str, dict[str, JudgedSlice]]


class AlteredEstimates(Metrics):
    """A measure of rows as they are and as they are altered, and what the change costs.

    Attributes:
        plain: of the rows as they are.
        altered: of the altered rows.
        drop: above zero where the change does harm; paired by control.
    """

    plain: Estimate
    altered: Estimate
    drop: Estimate


class ChangeMetrics(Metrics):
    """What one change of the rows, or of the target, costs the decoder.

    Attributes:
        right: answer loss, nats per token.
        none_minus_right: loss without activations less `right`, nats per token.
        own_answer: of a decoy: share of questions where the row's answer is likelier than the
            decoy's.
        moved: of a fine-tune: mean change of an activation, as a share of its norm.
        out_of_distribution: of a fine-tune: share of rows flagged by the detector
            (decoder/sources/training_distribution.py).
        excluded: rows that were not measured, by reason.
    """

    right: AlteredEstimates
    none_minus_right: AlteredEstimates
    own_answer: AlteredEstimates | None = None
    moved: float | None = None
    out_of_distribution: float | None = None
    excluded: dict[str, int]


class SplitEstimates(Metrics):
    """A measure of the splits `test` and `test_ood`.

    Attributes:
        test: categories that training saw.
        test_ood: held-out categories.
        drop: above zero where held-out categories are harder; unpaired.
    """

    test: Estimate
    test_ood: Estimate
    drop: Estimate


class HeldOutMetrics(Metrics):
    """What held-out categories cost the decoder; nats per token, as in `ChangeMetrics`."""

    right: SplitEstimates
    none_minus_right: SplitEstimates


class FineTuneMetrics(Metrics):
    """The fine-tune of the target: language-model loss of its first and last step."""

    losses: tuple[float, float]


class RobustnessMetrics(Metrics):
    """What the step `robustness` measured.

    Attributes:
        views: by split, view and change (an alteration, or `shift:STRENGTH`).
        held_out: by view.
        fine_tune: None where the target was not fine-tuned.
    """

    views: dict[str, dict[str, dict[str, ChangeMetrics]]]
    held_out: dict[str, HeldOutMetrics]
    fine_tune: FineTuneMetrics | None
