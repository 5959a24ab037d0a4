"""`confidence`: log-probability of the written answer, mean over its tokens, in nats."""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric

CONFIDENCE = Metric("confidence", lambda written: written.log_probability)
