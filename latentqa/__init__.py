"""Ask a language model's hidden activations open questions.

```python
import latentqa

result = latentqa.run("experiments/quickstart.yaml")   # run an experiment, or reuse its steps
steps = latentqa.plan("experiments/quickstart.yaml")   # what a run would do
latentqa.results("quickstart")["groups"]               # its numbers, by question too
found = latentqa.sweep("experiments/quickstart.yaml", vary=["rank=4,16"])   # scaling curves
reader = latentqa.load("quickstart")                   # a trained decoder with its target
with latentqa.steer("quickstart", "cheerful") as target:  # the target, steered through it
    target.reply("How do I peel garlic?")
store = latentqa.open_store("quickstart")              # its activations
experiment = latentqa.Experiment(experiment="mine", data={"path": "published"})
```

The import loads neither torch nor transformers nor Prefect; the functions do when they are called.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from latentqa.api import load, open_store, plan, results, run, steer, sweep

if TYPE_CHECKING:
    from pipelines.experiment.config import Experiment

__all__ = ["Experiment", "load", "open_store", "plan", "results", "run", "steer", "sweep"]


def __getattr__(name: str) -> object:
    """Import the class `Experiment`, and look the version up, when they are asked for."""
    if name == "Experiment":
        from pipelines.experiment.config import Experiment

        return Experiment
    if name == "__version__":
        return metadata.version("latentqa")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "Experiment", "__version__"])
