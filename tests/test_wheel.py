"""The wheel: packages, the files beside the code, and experiments that `latentqa init` writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in CHECKOUT.glob("*/__init__.py"))
FILES = ("flows.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a copy of what is packaged: a build writes beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel") / "source"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / package, folder / package, ignore=ignored)
    for name in FILES:
        shutil.copy(CHECKOUT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    command = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", ".")
    done = subprocess.run(
        [sys.executable, *command, "-w", source.parent],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = source.parent.glob("*.whl")
    return found


def test_a_wheel_holds_all_that_the_packages_hold(source: Path, wheel: Path) -> None:
    expected = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    found = set(zipfile.ZipFile(wheel).namelist())
    assert {*expected, "flows.py"} <= found, sorted(expected - found)


def test_every_package_says_that_it_is_typed(wheel: Path) -> None:
    found = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{name}/py.typed" for name in PACKAGES if name != "experiments"} <= found


def test_init_works_after_an_installation(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "from latentqa.cli import main; main(['init', 'quickstart'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "quickstart.yaml").read_text()
    assert written == (CHECKOUT / "experiments" / "quickstart.yaml").read_text()
    assert (tmp_path / "experiment.schema.json").is_file()
