"""The page about reading tasks: its section is valid, its method can be added."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import reading_model
import yaml

from evaluators.tasks.config import PREDICTOR_NAMES, TasksConfig
from evaluators.tasks.measure import measure_task
from evaluators.tasks.predictors import PREDICTORS
from evaluators.tasks.predictors.base import PredictorKind
from evaluators.tasks.relation_task import build_relation_task
from generators.kinds.relation_files import read_relation

LAYERS = (1, 2)
CONFIG = TasksConfig.model_validate(
    {"min_subjects": 4, "shares": {"train": 0.3, "validation": 0.2}, "bootstrap": 200}
)
PAGE = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text()


def test_the_sections_and_the_relation_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    parsed = [yaml.safe_load(block) for block in blocks]
    sections = [block["tasks"] for block in parsed if "tasks" in block]
    (relation,) = (block for block in parsed if "tasks" not in block)
    assert len(sections) == 2
    for section in sections:
        TasksConfig.model_validate(section)
    (tmp_path / "capital.yaml").write_text(yaml.safe_dump(relation))
    assert len(read_relation(tmp_path / "capital.yaml").subjects) == 2


def test_every_method_is_described() -> None:
    assert set(PREDICTORS) == set(PREDICTOR_NAMES)
    assert all(f"`{name}`" in PAGE for name in PREDICTOR_NAMES)
    assert [kind.name for kind in PREDICTORS.values()] == list(PREDICTORS)


def test_the_method_on_the_page_works(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "commonest.py", "exec"), names)
    kind: PredictorKind = names["COMMONEST"]
    relation = read_relation(reading_model.write_relation(tmp_path / "number.json"))
    decoder = reading_model.decoder()
    data = build_relation_task(decoder, relation, CONFIG, LAYERS)
    found = measure_task(data, {kind.name: reading_model.run(decoder, data, kind)}, CONFIG)
    assert found.predictors[kind.name].chosen.estimate == 0.25
