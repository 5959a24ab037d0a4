"""docs/architecture.md and CONTRIBUTING.md name files that are there, and link each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
ARCHITECTURE = CHECKOUT / "docs" / "architecture.md"


def paths(page: Path) -> list[str]:
    """List the files and folders of the checkout that a page names in code marks."""
    named = r"`(?:python )?([\w.-]+(?:/[\w.-]*)+|\w+\.py)`"
    found = re.findall(named, page.read_text())
    return sorted(
        {path for path in found if not path.startswith((".venv", "ROOT", "kind/", "__init__"))}
    )


@pytest.mark.parametrize("page", [ARCHITECTURE, CHECKOUT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_every_path_named_is_there(page: Path) -> None:
    named = paths(page)
    assert len(named) >= 5
    assert [path for path in named if not (CHECKOUT / path).exists()] == []


def test_every_package_is_described() -> None:
    packages = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")} - {"experiments"}
    assert packages <= {path.strip("/") for path in paths(ARCHITECTURE)}


def test_the_readme_links_it_before_its_first_output() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    assert 0 < readme.index("docs/architecture.md") < readme.index("Answer loss in nats per token")
