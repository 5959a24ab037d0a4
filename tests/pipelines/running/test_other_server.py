import json
from pathlib import Path

import pytest
from http_endpoint import ScriptedEndpoint

from pipelines.running.remarks import other_server
from pipelines.running.request import RunRequest


@pytest.mark.parametrize(
    ("model", "was", "now", "told"),
    [
        ("local", "http://one/v1", "http://two/v1", True),
        ("local", "http://one/v1", "http://one/v1", False),
        ("local@3", "http://one/v1", "http://two/v1", False),
        ("gguf:1234", None, None, False),
    ],
)
def test_a_hit_of_another_server_of_the_same_name_is_told(
    model: str, was: str | None, now: str | None, told: bool
) -> None:
    line = other_server({"generator": model}, {"base_url": was}, {"base_url": now})
    assert (line is not None) is told


def test_two_servers_that_are_both_called_local_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(endpoint: ScriptedEndpoint) -> str:
        section = {
            "endpoint": {"model": "local", "base_url": endpoint.base_url},
            "conversations": {"kinds": {"goal": {"controls": 2}}},
        }
        (tmp_path / "own.yaml").write_text(json.dumps({"experiment": "own", "generate": section}))
        RunRequest(
            config=str(tmp_path / "own.yaml"), root=str(tmp_path / "root"), until="conversations"
        ).open().run()
        return capsys.readouterr().err

    with ScriptedEndpoint() as one, ScriptedEndpoint() as two:
        assert "revision" not in run(one)
        assert "revision" not in run(one)
        assert f"Replies of 'local' at {one.base_url} are reused for" in run(two)
        assert not two.requests
