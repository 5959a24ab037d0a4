"""Which Prefect API the user has configured, found without importing prefect.

prefect itself takes more than a second to import, and a run that no server watches needs none of
it. The places and their order are those of `prefect.settings`: the environment, `prefect.toml` and
`pyproject.toml` of the working folder, and the active profile.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.errors import ConfigError

URL = "PREFECT_API_URL"


def configured_api_url(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL of the Prefect API that runs are shown on; None where none is configured.

    Raises:
        ConfigError: a settings file of Prefect is not TOML.
    """
    if url := environment.get(URL):
        return url
    for name, sections in (("prefect.toml", ()), ("pyproject.toml", ("tool", "prefect"))):
        settings = _section(_read(Path(name)), *sections, "api")
        if url := settings.get("url"):
            return str(url)
    home = Path(environment.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = _read(Path(environment.get("PREFECT_PROFILES_PATH", home / "profiles.toml")))
    active = environment.get("PREFECT_PROFILE") or str(profiles.get("active", ""))
    url = _section(profiles, "profiles", active).get(URL)
    return str(url) if url else None


def bypass_proxy(url: str) -> None:
    """Keep requests to a server on this machine from a proxy, which does not lead to it."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: Prefect's settings cannot be read ({error}). Correct the file, or set {URL}."
        ) from error


def _section(value: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        inner = value.get(name)
        value = inner if isinstance(inner, Mapping) else {}
    return value
