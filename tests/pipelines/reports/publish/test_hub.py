"""Folders go to the hub with the environment's token, or one line says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError, EndpointError
from pipelines.reports.publish.hub import push_folder


def push_mine(folder: Path, *, private: bool = False) -> str:
    return push_folder(folder, "me/mine", kind="dataset", private=private, message="Rows")


class Hub:
    """What `HfApi` does, noted down."""

    def __init__(self, token: str, fails: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = [("token", {"token": token})]
        self._fails = fails

    def create_repo(self, repo: str, **more: Any) -> str:
        self.calls.append(("create_repo", {"repo": repo, **more}))
        if self._fails is not None:
            raise self._fails
        return f"https://hub.example/datasets/{repo}"

    def upload_folder(self, **more: Any) -> None:
        self.calls.append(("upload_folder", more))


def test_a_folder_goes_to_the_hub_with_the_environments_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hubs: list[Hub] = []

    def api(token: str) -> Hub:
        hubs.append(Hub(token))
        return hubs[-1]

    monkeypatch.setattr("huggingface_hub.HfApi", api)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert push_mine(tmp_path, private=True).endswith("/me/mine")
    assert [name for name, _ in hubs[0].calls] == ["token", "create_repo", "upload_folder"]
    assert hubs[0].calls[0][1] == {"token": "hf_secret"}
    assert hubs[0].calls[1][1]["private"] is True
    assert hubs[0].calls[2][1]["folder_path"] == str(tmp_path)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="HF_TOKEN is not set"):
        push_mine(tmp_path)


def test_a_hub_out_of_reach_is_one_line_without_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    error = ConnectionError("no route\nto host with hf_secret")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token: Hub(token, error))
    with pytest.raises(EndpointError) as caught:
        push_mine(tmp_path)
    said = str(caught.value)
    assert "\n" not in said
    assert "hf_secret" not in said
    assert "ConnectionError: no route to host" in said
    monkeypatch.undo()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(EndpointError, match="Check the connection and the token's write access"):
        push_mine(tmp_path)  # HF_HUB_OFFLINE, or no network at all
