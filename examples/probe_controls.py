"""Fit a linear probe on stored activations: does it tell the values of hidden controls apart?

For an experiment with controls of the kind `instruction`. The probe sees the mean of a row's
visible activations. It is fitted on training rows and judged on new stimuli under the same controls
(`test_seen`) and under controls that combine the values anew (`test`).

python examples/probe_controls.py reading
"""

import sys
from collections import defaultdict

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import latentqa
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import Conversation
from evaluators.stats.estimates import Resampling, mean_estimate
from latentqa.api import open_refs

MASKED_VIEWS = ("stimulus_completion", "stimulus", "system")
STRENGTHS = {"logisticregression__C": [1e-3, 1e-2, 1e-1, 1.0]}


def main(ref: str) -> None:
    """Print the probe's accuracy for each view, attribute and split, n controls each."""
    store = latentqa.open_store(ref)
    rows_file = open_refs().resolve(ref, kind="complete").data / CONVERSATIONS_FILE
    by_view = defaultdict(list)
    for row in read_conversations(rows_file):
        if row.view in MASKED_VIEWS and row.example_id in store:
            by_view[row.view].append(row)
    for view, rows in by_view.items():
        means = []
        for row in rows:
            visible = store.read(row.example_id, store.only_layer(None))
            means.append(visible[store.place(row.example_id).withheld :].mean(0))
        for attribute in _values(rows[0]):
            accuracy = probe(rows, np.stack(means), [_values(row)[attribute] for row in rows])
            print(view, attribute, *accuracy, sep="  ")


def probe(rows: list[Conversation], means_RD: np.ndarray, labels: list[str]) -> list[str]:
    """Fit a probe of one attribute; return its accuracy on each split with a 95 % interval.

    Its regularisation is the best on training controls that it was not fitted on.

    Args:
        rows: R rows of one view.
        means_RD: mean visible activation of each.
        labels: value of the attribute for each.
    """
    value_R = np.array(labels)
    split_R = np.array([row.split for row in rows])
    control_R = np.array([row.control_id for row in rows])
    train = split_R == "train"
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    search = GridSearchCV(model, STRENGTHS, cv=GroupKFold(5))
    search.fit(means_RD[train], value_R[train], groups=control_R[train])
    found = []
    for split in ("test_seen", "test"):
        right = search.predict(means_RD[split_R == split]) == value_R[split_R == split]
        own = control_R[split_R == split]
        by_control = [right[own == control].mean() for control in sorted(set(own))]
        shown = mean_estimate(by_control, Resampling())
        found.append(f"{split} {shown} n {shown.n}")
    return found


def _values(row: Conversation) -> dict[str, str]:
    values: dict[str, str] = row.provenance["facts"]["values"]
    return values


if __name__ == "__main__":
    main(*sys.argv[1:])
