"""Paired significance tests over controls.

Shapes: C controls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

_CHUNK = 1000
"""Resamples computed at once, which bounds memory."""


def sign_flip_p_value(differences_C: np.ndarray, *, samples: int, seed: int) -> float | None:
    """Compute the two-sided p of a mean difference by a sign-flip permutation test.

    Where two runs are alike, each control's difference is as likely to be positive as negative.
    With few controls all signs are enumerated.

    Args:
        differences_C: one per control.
        samples: most draws of all signs.
        seed: of the draws.

    Returns:
        p, or None where there is no control.
    """
    if not len(differences_C):
        return None
    if len(differences_C) == 1 or not differences_C.any():
        return 1.0
    found = stats.permutation_test(
        (differences_C,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=samples,
        batch=_CHUNK,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def adjust_holm(ps: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for having tested all of them (Holm 1979); a missing one stays missing."""
    order = sorted((i for i, p in enumerate(ps) if p is not None), key=lambda i: ps[i] or 0.0)
    out: list[float | None] = [None] * len(ps)
    lowest = 0.0
    for rank, i in enumerate(order):
        lowest = max(lowest, min(1.0, (ps[i] or 0.0) * (len(order) - rank)))
        out[i] = lowest
    return out
