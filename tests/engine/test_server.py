"""How vLLM is started, and what is left when it has ended; whole jobs on it are in tests/vllm."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from selftaught.contracts import EngineSettings
from selftaught.engines import Spec
from services.engine.main import device_names
from services.engine.server import Server, command


def spec(rank: int = 16, **settings: object) -> Spec:
    chosen = EngineSettings.model_validate(settings)
    return Spec(base="/models/llama", name="llama", settings=chosen, max_lora_rank=rank)


def told(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_on_gpus_the_recipe_says_how() -> None:
    arguments, env = command(
        "python", spec(64, tensor_parallel=4, max_model_len=8192), ["0", "1", "2", "5"], "h", 8000
    )
    assert arguments[:3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
    assert told(arguments, "--model") == "/models/llama"
    assert told(arguments, "--tensor-parallel-size") == "4"
    assert told(arguments, "--max-model-len") == "8192"
    assert told(arguments, "--max-lora-rank") == "64"
    assert told(arguments, "--dtype") == "auto"
    assert "--enable-prefix-caching" in arguments
    assert "--enforce-eager" not in arguments
    assert env["CUDA_VISIBLE_DEVICES"] == "0,1,2,5"


def test_on_a_cpu_it_runs_in_float32_and_never_cuts_a_prompt() -> None:
    arguments, env = command("python", spec(0, prefix_caching=False), ["cpu1"], "h", 8000)
    assert told(arguments, "--dtype") == "float32"
    assert "--no-enable-chunked-prefill" in arguments
    assert "--no-enable-prefix-caching" in arguments
    assert "--enable-lora" not in arguments
    assert "CUDA_VISIBLE_DEVICES" not in env


def test_on_a_cpu_the_longest_prompt_fits_into_a_batch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 131072}')
    long = Spec(base=str(tmp_path), name="m", settings=EngineSettings(), max_lora_rank=0)
    assert told(command("python", long, ["cpu"], "h", 1)[0], "--max-num-batched-tokens") == "131072"
    short = long.model_copy(update={"settings": EngineSettings(max_model_len=100)})
    assert told(command("python", short, ["cpu"], "h", 1)[0], "--max-num-batched-tokens") == "8192"


def test_devices_are_as_configured_or_as_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert device_names("0, 1") == ["0", "1"]
    assert device_names(None) == ["2", "3"]


def run(code: str, folder: Path) -> Server:
    return Server([sys.executable, "-c", code], {}, "http://127.0.0.1:9", folder / "log")


def ended(server: Server) -> int:
    while (code := server.exit_code()) is None:
        time.sleep(0.01)
    return code


def test_its_last_words_are_kept_and_an_earlier_runs_are_not(tmp_path: Path) -> None:
    ended(run("print('torch.OutOfMemoryError: CUDA out of memory')", tmp_path))
    lines = "; ".join(f"print('line {n}')" for n in range(50))
    server = run(f"{lines}; raise SystemExit(3)", tmp_path)
    assert ended(server) == 3
    assert server.tail().splitlines() == [f"line {n}" for n in range(30, 50)]
    assert not server.out_of_memory()


def test_the_cause_is_told_though_much_came_after_it(tmp_path: Path) -> None:
    lines = ["ValueError: the cause", *map(str, range(100)), "RuntimeError: see above"]
    server = run(f"print({chr(10).join(lines)!r})", tmp_path)
    ended(server)
    told = server.tail().splitlines()
    assert (told[0], told[-1], len(told)) == (lines[0], lines[-1], 21)


@pytest.mark.parametrize(
    "words",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "ValueError: No available memory for the cache blocks.",
        "To serve at least one request .. larger than the available KV cache memory (1.0 GiB)",
    ],
)
def test_too_little_memory_is_recognised(words: str, tmp_path: Path) -> None:
    server = run(f"print({words!r}); raise SystemExit(1)", tmp_path)
    ended(server)
    assert server.out_of_memory()


def test_what_a_dead_server_left_behind_is_killed(tmp_path: Path) -> None:
    """The engine's processes lead sessions of their own and hold the GPU's memory."""
    child = "import time; time.sleep(600)"
    code = (
        "import subprocess, sys, time\n"
        f"print(subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True).pid,"
        " flush=True)\n"
        "time.sleep(600)"
    )
    server = run(code, tmp_path)
    while not (tmp_path / "log").read_text().strip():
        time.sleep(0.01)
    orphan = psutil.Process(int((tmp_path / "log").read_text()))
    assert server.exit_code() is None  # a look at it also notes its descendants
    psutil.Process(server.pid).kill()
    ended(server)
    assert orphan.is_running()
    server.clear()
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_does_not_answer_is_neither_healthy_nor_stuck(tmp_path: Path) -> None:
    server = run("import time; time.sleep(600)", tmp_path)
    assert not server.healthy()
    assert server.metrics() is None
    assert server.stuck_seconds() == 0.0
    server.stop()
    assert server.exit_code() is not None
