"""One vLLM server as a child process: its command, whether it lives, and what it said at the end.

vLLM lives in an environment of its own; here it is a program with an HTTP interface.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from selftaught.devices import CPU
from selftaught.engines import Spec

TAIL_LINES = 20
CAUSES = 3
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|No available memory for the cache blocks"
    r"|larger than the (available KV cache memory|maximum number of tokens)"
    r"|less than desired GPU memory utilization|Cannot allocate memory",
    re.IGNORECASE,
)
_ERROR = re.compile(r"[\w.]+(Error|Exception): ")
_NOISE = re.compile(r"nanobind|leaked|Route:|resource_tracker|warnings\.warn")
_PR_SET_PDEATHSIG = 1


def command(
    python: str, spec: Spec, devices: Sequence[str], host: str, port: int
) -> tuple[list[str], dict[str, str]]:
    """How to start vLLM for `spec` on these devices: arguments, and what to add to the environment.

    On a CPU: float32 unless told otherwise, and whole prompts only, since vLLM 0.32 dies of a
    sampled request with a seed whose prompt it has cut ("CPU Generator does not use offset").
    """
    settings = spec.settings
    cpu = all(name.startswith(CPU) for name in devices)
    dtype = "float32" if cpu and settings.dtype == "auto" else settings.dtype
    arguments = [python, "-m", "vllm.entrypoints.openai.api_server"]
    arguments += ["--model", spec.base, "--served-model-name", spec.name]
    arguments += ["--load-format", "safetensors"]  # or a folder without any would be unpickled
    arguments += ["--host", host, "--port", str(port), "--dtype", dtype]
    # Defaults of the model's own generation_config would mix with what a request says.
    arguments += ["--generation-config", "vllm", "--seed", str(settings.seed)]
    arguments += ["--tensor-parallel-size", str(settings.tensor_parallel)]
    arguments += ["--pipeline-parallel-size", str(settings.pipeline_parallel)]
    arguments += ["--data-parallel-size", str(settings.data_parallel)]
    arguments += ["--uvicorn-log-level", "warning", "--enable-server-load-tracking"]
    if settings.max_model_len is not None:
        arguments += ["--max-model-len", str(settings.max_model_len)]
    switch = "--enable-prefix-caching" if settings.prefix_caching else "--no-enable-prefix-caching"
    arguments += [switch]
    if spec.max_lora_rank:
        arguments += ["--enable-lora", "--max-lora-rank", str(spec.max_lora_rank)]
        arguments += ["--max-loras", str(settings.max_adapters)]
        arguments += ["--max-cpu-loras", str(settings.max_adapters)]
    env = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1"}
    env |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if cpu:
        arguments += ["--enforce-eager", "--block-size", "32", "--no-enable-chunked-prefill"]
        longest = settings.max_model_len or _context(Path(spec.base))
        arguments += ["--max-num-batched-tokens", str(max(8192, longest))]
        env["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
    else:
        arguments += ["--gpu-memory-utilization", str(settings.memory_share)]
        env["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    return arguments, env


class Server:
    """A running vLLM. Its log is `log`; it dies with this process, however that ends."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], url: str, log: Path) -> None:
        self.url = url
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # Sockets between vLLM's processes, which a killed one leaves behind.
        self._run = Path(tempfile.mkdtemp(prefix="selftaught-vllm-"))
        env = {**env, "VLLM_RPC_BASE_PATH": str(self._run), "TMPDIR": str(self._run)}
        with log.open("ab") as file:
            self._log_start = file.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                arguments,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
        self.pid = self._process.pid
        self.started = time.monotonic()
        self._family: dict[int, psutil.Process] = {}
        self._moved = (-1.0, time.monotonic())

    def exit_code(self) -> int | None:
        """None while it runs."""
        self._remember()
        return self._process.poll()

    def healthy(self) -> bool:
        """It answers, and its engine lives."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stuck_seconds(self) -> float:
        """So long it has had requests and made no token; 0 if it is idle or does not answer."""
        found = self.metrics()
        if found is None:
            return 0.0
        now = time.monotonic()
        tokens = found.get("generation_tokens_total", 0.0) + found.get("prompt_tokens_total", 0.0)
        if tokens != self._moved[0] or not self.load():
            self._moved = (tokens, now)
        return now - self._moved[1]

    def load(self) -> int:
        """Requests that it has not answered, as its HTTP side counts them; 0 if it does not answer.

        The engine's own gauges stand still with the engine, at whatever they last were.
        """
        try:
            answer = httpx.get(f"{self.url}/load", timeout=5)
        except httpx.TransportError:
            return 0
        return int(answer.raise_for_status().json()["server_load"])

    def metrics(self) -> dict[str, float] | None:
        """vLLM's gauges and counters by name without the prefix, summed over engines."""
        try:
            text = httpx.get(f"{self.url}/metrics", timeout=5).text
        except httpx.TransportError:
            return None
        found: dict[str, float] = {}
        for line in text.splitlines():
            if line.startswith("vllm:"):
                name, _, rest = line.removeprefix("vllm:").partition("{")
                found[name] = found.get(name, 0.0) + float(rest.rpartition(" ")[2])
        return found

    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, over all engines."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        total = 0
        for line in text.splitlines():
            if line.startswith("vllm:cache_config_info{"):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
                total += int(labels["num_gpu_blocks"]) * int(labels["block_size"])
        return total

    def stop(self, grace: float = 15.0) -> None:
        """End it, and every process that it has started."""
        self._remember()
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        self.clear()

    def clear(self) -> None:
        """Kill what a server that has ended, or will not end, left behind (its GPU memory too)."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for process in self._family.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(list(self._family.values()), timeout=10)
        shutil.rmtree(self._run, ignore_errors=True)

    def tail(self) -> str:
        """The last lines of its log that say something, behind errors that stand further up: the
        first ones are the cause, the last ones a consequence."""
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, end - 65536))
            lines = file.read().decode(errors="replace").splitlines()
        lines = [line for line in lines if not _NOISE.search(line)]
        causes = [line for line in lines[:-TAIL_LINES] if _ERROR.match(line)][:CAUSES]
        return "\n".join([*causes, *lines[-TAIL_LINES:]])

    def out_of_memory(self) -> bool:
        """Its log, or the way it ended, says that memory did not suffice."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return bool(_OUT_OF_MEMORY.search(file.read().decode(errors="replace")))

    def _remember(self) -> None:
        """Note its descendants: when it is gone, nobody can tell any more which they were."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                self._family.setdefault(child.pid, child)


def _context(folder: Path) -> int:
    """Tokens that a model takes; 0 if its config does not say."""
    config = folder / "config.json"
    if not config.is_file():
        return 0
    return int(json.loads(config.read_text()).get("max_position_embeddings") or 0)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
