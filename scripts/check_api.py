"""schemathesis over the whole OpenAPI document, against a running stack: `make schemathesis`.

Twice: as a stranger and as a key with every scope at a gateway that is closed, as in production,
and without a key at the embedded stack's own, which is open. All checks are on, but for what
schemathesis.toml leaves out with a reason. Prints schemathesis's report; ends with 1 if it found
anything.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from selftaught.client import Client
from selftaught.contracts import DatasetKind
from selftaught.stack.handle import Stack

ROOT = Path(__file__).resolve().parents[1]
ROWS: dict[DatasetKind, dict[str, str]] = {
    "instructions": {"instruction": "say it"},
    "labelled": {"instruction": "say it", "chosen": "it", "rejected": "no"},
    "pairs": {"instruction": "say it", "response_a": "it", "response_b": "no"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=20, help="per operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("key", "open"), help="one of the two runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="selftaught-") as home, Stack(home) as stack:
        furnish(stack.gateway_url)
        failed = 0
        if options.only != "open":
            with closed_gateway(stack) as url:
                print(f"== with a key, at a closed gateway ({url})", flush=True)
                failed += run(url, options, [], {"SCHEMATHESIS_MINT": stack.gateway_url})
        if options.only != "key":
            print(f"== without a key, at the open gateway ({stack.gateway_url})", flush=True)
            failed += run(stack.gateway_url, options, [], {"SCHEMATHESIS_OPEN": "1"})
    sys.exit(1 if failed else 0)


def furnish(gateway: str) -> None:
    """A registered model with its `latest`, and a dataset of each kind, to be found in lists."""
    with Client(gateway) as client:
        for kind, row in ROWS.items():
            client.datasets.upload([row] * 40, kind)
        client.models.register("smallworld", name="tour").wait(300)


def run(url: str, options: argparse.Namespace, more: list[str], env: dict[str, str]) -> int:
    """Whether it found anything, as 0 or 1."""
    command = [
        str(Path(sys.executable).with_name("st")),
        *("--config-file", str(ROOT / "schemathesis.toml"), "run", f"{url}/openapi.json"),
        *("--max-examples", str(options.examples), "--seed", str(options.seed)),
        *more,
    ]
    done = subprocess.run(command, check=False, cwd=ROOT, env=os.environ | env)
    return min(1, done.returncode)


@contextmanager
def closed_gateway(stack: Stack) -> Iterator[str]:
    """A second gateway of the stack, for callers with keys only."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = os.environ | {
        "DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "SELFTAUGHT_HOME": str(stack.home),
        "EVALUATOR_URL": stack.evaluator_url,
    }
    env.pop("SELFTAUGHT_OPEN", None)
    command = [sys.executable, "-m", "uvicorn", "services.api.main:app", "--log-level", "warning"]
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
