"""The configured Prefect API is found where Prefect looks for it, without prefect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import ConfigError
from pipelines.running.prefect_settings import configured_api_url

PROFILES = """
active = "team"
[profiles.ephemeral]
PREFECT_SERVER_ALLOW_EPHEMERAL_MODE = "true"
[profiles.team]
PREFECT_API_URL = "http://team:4200/api"
[profiles.cloud]
PREFECT_API_URL = "https://api.prefect.cloud/api/x"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a Prefect home with profiles, and an empty working folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "profiles.toml").write_text(PROFILES)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_nothing_is_configured_by_default(home: Path) -> None:
    assert configured_api_url({"PREFECT_HOME": str(home / "none")}) is None


def test_the_environment_comes_first(home: Path) -> None:
    own = {"PREFECT_HOME": str(home), "PREFECT_API_URL": "http://mine:4200/api"}
    assert configured_api_url(own) == "http://mine:4200/api"


@pytest.mark.parametrize(
    ("own", "url"),
    [
        ({}, "http://team:4200/api"),
        ({"PREFECT_PROFILE": "cloud"}, "https://api.prefect.cloud/api/x"),
        ({"PREFECT_PROFILE": "ephemeral"}, None),
        ({"PREFECT_PROFILE": "unknown"}, None),
    ],
)
def test_the_active_profile_counts(home: Path, own: dict[str, str], url: str | None) -> None:
    assert configured_api_url({"PREFECT_HOME": str(home), **own}) == url
    elsewhere = {"PREFECT_PROFILES_PATH": str(home / "profiles.toml"), **own}
    assert configured_api_url(elsewhere) == url


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prefect.toml", '[api]\nurl = "http://here:4200/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://here:4200/api"\n'),
    ],
)
def test_settings_of_the_working_folder_come_before_the_profile(
    home: Path, name: str, text: str
) -> None:
    Path(name).write_text(text)
    assert configured_api_url({"PREFECT_HOME": str(home)}) == "http://here:4200/api"


def test_a_file_that_is_no_toml_is_named(home: Path) -> None:
    (home / "profiles.toml").write_text("active =")
    with pytest.raises(ConfigError, match=r"profiles\.toml: Prefect's settings cannot be read"):
        configured_api_url({"PREFECT_HOME": str(home)})


def test_prefect_itself_finds_the_same(home: Path) -> None:
    script = "from prefect.settings import PREFECT_API_URL; print(PREFECT_API_URL.value())"
    for name, text in (("pyproject.toml", '[tool.prefect.api]\nurl = "http://a/api"\n'), ("", "")):
        if name:
            Path(name).write_text(text)
        found = subprocess.run(
            [sys.executable, "-c", script],
            env={"PREFECT_HOME": str(home), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert configured_api_url({"PREFECT_HOME": str(home)}) == found.stdout.strip()
        Path("pyproject.toml").unlink(missing_ok=True)
