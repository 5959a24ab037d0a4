"""What a decoder is given of a row while it is trained.

| variant | the decoder is given | so it learns |
|---|---|---|
| own | the row's own activations | to read |
| prior | the activations of another control of the same kind | what answers look like, no more |
| text | the control's own words in place of activations | what can be answered at best |

The last two are baselines: the same training, with nothing to read and with everything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from decoder.batch import Reading
from decoder.prompt import DecoderPrompt
from decoder.reading import Activations, ReadLayers
from generators.canonical import digest
from generators.errors import DataError
from trainers.config import Variant
from trainers.rows import Row, read_row, visible_tokens


@dataclass(frozen=True, slots=True)
class Given:
    """How rows are read.

    Attributes:
        read: what the decoder is given of a row.
        length: its number of tokens, without reading it.
    """

    read: Callable[[Row], Reading]
    length: Callable[[Row], int]


def given(
    variant: Variant,
    rows: Sequence[Row],
    store: Activations,
    prompt: DecoderPrompt,
    *,
    layers: Callable[[str], ReadLayers],
    masking: bool,
    seed: int,
) -> Given:
    """What a decoder of `variant` is given.

    Args:
        rows: all rows of the split, from which other controls are drawn.
        layers: which layers are read of an example, by its id.

    Raises:
        DataError: `prior`, and a view of the split has a single group of rows.
    """
    if variant == "text":
        return Given(lambda row: text_reading(prompt, row), lambda row: text_reading(prompt, row).n)
    donors = shuffled(rows, seed=seed) if variant == "prior" else {}
    return own(store, layers=layers, masking=masking, donors=donors)


def own(
    store: Activations,
    *,
    layers: Callable[[str], ReadLayers],
    masking: bool,
    donors: Mapping[str, Row] | None = None,
) -> Given:
    """Each row's own visible activations; those of its donor where it has one."""

    def source(row: Row) -> Row:
        return (donors or {}).get(row.example_id, row)

    def read(row: Row) -> Reading:
        return read_row(store, source(row), layers(row.example_id), masking=masking)

    def length(row: Row) -> int:
        visible = visible_tokens(store, source(row), masking=masking)
        return visible * len(layers(row.example_id).layers)

    return Given(read, length)


def text_reading(prompt: DecoderPrompt, row: Row) -> Reading:
    """The control's own words where activations would be."""
    ids = prompt.text(row.conversation.control)
    return Reading(None, len(ids), 0, ids=ids)


def shuffled(rows: Sequence[Row], *, seed: int) -> dict[str, Row]:
    """For each row one of another group, of the same view and kind, each used about as often.

    Rows of a view and kind stand in an order drawn by seed, and each takes the next of another
    group. A row whose group is alone of its kind takes one of any kind.

    Returns:
        Row by example id.

    Raises:
        DataError: a view has rows of a single group.
    """
    by_kind: dict[tuple[str, str], list[Row]] = defaultdict(list)
    by_view: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: digest([seed, row.example_id])):
        by_kind[row.conversation.view, row.conversation.kind].append(row)
        by_view[row.conversation.view].append(row)
    out: dict[str, Row] = {}
    for alike in by_kind.values():
        out |= _next_of_another_group(alike)
    for view, seen in by_view.items():
        out = _next_of_another_group(seen) | out
        if missing := [row for row in seen if row.example_id not in out]:
            raise DataError(
                f"train, variant prior: the {len(missing)} rows of view {view} in split "
                f"{missing[0].conversation.split} are all of one group; expected another control "
                "whose activations they could be given. Add rows, or leave `prior` out of "
                "evaluate.baselines."
            )
    return out


def _next_of_another_group(rows: Sequence[Row]) -> dict[str, Row]:
    out = {}
    for i, row in enumerate(rows):
        later = (*rows[i + 1 :], *rows[:i])
        group = row.conversation.group_id
        found = next((other for other in later if other.conversation.group_id != group), None)
        if found is not None:
            out[row.example_id] = found
    return out
