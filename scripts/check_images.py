"""Do the Dockerfiles work? Checked without a Docker engine: their steps, run in a clean place.

Each Dockerfile's COPY, ENV, ARG, WORKDIR and RUN steps are carried out in a folder that stands for
the image's root, with a fresh virtual environment in place of the image's Python. Then every
command that docker-compose.yml gives the image is started against an embedded Postgres and Redis,
and must become healthy by its HEALTHCHECK (and say that it is ready, for a worker). The password
comes from a file, as in production. The engine's image is built with vLLM for CPUs, and must serve
the shipped small model.

What this does not show: the base image, the user and file rights inside it, the network, and CUDA.

    make check-images            all of them
    python scripts/check_images.py api trainer
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml
from sqlalchemy import make_url

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from selftaught import engines  # noqa: E402
from selftaught.contracts import Recipe  # noqa: E402
from selftaught.database import transaction  # noqa: E402
from selftaught.database.tables import ModelVersion  # noqa: E402
from selftaught.stack.handle import Stack  # noqa: E402
from selftaught.stack.state import free_port, tail  # noqa: E402

IMAGES = ["api", "generator", "trainer", "evaluator", "engine"]
WITHOUT_TORCH = {"api", "engine"}
"""What runs there has no torch; vLLM's is in an environment of its own."""
BUILD_ARGS = {"engine": {"VLLM_PINS": "constraints-vllm.txt"}}
"""Where they differ from the Dockerfile's, for a machine without a GPU."""
READY_SECONDS = 240.0
NEEDS_AN_IMAGE = ("useradd", "apt-get", "chown")
"""RUN steps with these words change the system: they are named and left out."""
PASSED_ON = re.compile(r"^(PIP_.*|.*_proxy|.*_PROXY|SSL_CERT_.*|HOME|LANG|TMPDIR)$")


class CheckFailed(RuntimeError):
    """The Dockerfile does not do what it should."""


@dataclass
class Image:
    """One Dockerfile, and the folder that stands for what it builds."""

    name: str
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Only what pip needs from this machine, then what the Dockerfile sets."""
        base = {name: value for name, value in os.environ.items() if PASSED_ON.match(name)}
        base["PIP_QUIET"] = "2"
        base["PATH"] = os.pathsep.join([str(self.folder / "venv" / "bin"), "/usr/bin", "/bin"])
        return {**base, **{name: self.inside(value) for name, value in self.env.items()}}

    def path(self, image_path: str) -> Path:
        """Where a path of the image lies here."""
        whole = os.path.normpath(os.path.join(self.workdir, image_path))
        return self.folder / "root" / whole.lstrip("/")

    def inside(self, text: str) -> str:
        """`text` with the image's own folders replaced by ours."""
        return re.sub(r"(?<![\w./-])/(app|data|opt|home)\b", rf"{self.folder}/root/\1", text)


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """(instruction, rest) of each step, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def build(image: Image, context: Path) -> None:
    """Carry out the Dockerfile's steps."""
    print(f"== {image.name}: build", flush=True)
    venv.create(image.folder / "venv", with_pip=True)
    for folder in ("app", "data"):
        (image.folder / "root" / folder).mkdir(parents=True)
    for word, rest in instructions(context / "services" / image.name / "Dockerfile"):
        print(f"   {word} {rest[:100]}", flush=True)
        step(image, context, word, rest)


def step(image: Image, context: Path, word: str, rest: str) -> None:
    """One instruction."""
    if word == "FROM":
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if not rest.startswith(f"python:{version}."):
            raise CheckFailed(f"FROM {rest}, but this check runs on Python {version}")
    elif word in ("ENV", "ARG"):
        target = image.env if word == "ENV" else image.args
        for part in shlex.split(rest):
            name, _, value = part.partition("=")
            target[name] = value
        if word == "ARG":
            given = BUILD_ARGS.get(image.name, {})
            target.update({name: given[name] for name in target.keys() & given.keys()})
    elif word == "WORKDIR":
        image.workdir = rest
        image.path(".").mkdir(parents=True, exist_ok=True)
    elif word == "COPY":
        *sources, target_path = rest.split()
        for source in sources:
            copy(context, source, image.path(target_path), is_folder=target_path.endswith("/"))
    elif word == "RUN":
        run(image, re.sub(r"--mount=\S+ ", "", rest))
    elif word == "CMD":
        image.command = json.loads(rest)
    elif word == "HEALTHCHECK":
        image.health = json.loads(rest.split("CMD", 1)[1])
    elif word not in ("USER", "EXPOSE"):
        raise CheckFailed(f"this check does not know {word}")


def copy(context: Path, source: str, target: Path, *, is_folder: bool) -> None:
    """COPY, for what .dockerignore lets through."""
    if f"!{source}" not in (context / ".dockerignore").read_text().splitlines():
        raise CheckFailed(f"COPY {source}: .dockerignore keeps it out")
    path = context / source
    if path.is_dir():
        shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    elif path.exists():
        shutil.copy(path, target / path.name if is_folder else target)
    else:
        raise CheckFailed(f"COPY {source}: there is no such file")


def run(image: Image, command: str) -> None:
    """RUN, unless it needs to be root of an image."""
    if any(word in command for word in NEEDS_AN_IMAGE):
        print("      left out: it changes the image's system", flush=True)
        return
    env = {**image.args, **image.environment}
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", image.inside(command)], cwd=image.path("."), env=env, check=False
    )
    if done.returncode != 0:
        raise CheckFailed(f"RUN {command} ended with {done.returncode}")


@dataclass(frozen=True)
class Start:
    """A command that docker-compose.yml starts from an image."""

    service: str
    command: list[str]
    one_shot: bool
    health: list[str]  # a command; empty: none


def starts(image: Image, context: Path) -> list[Start]:
    """What the compose file runs from `image`, every command once, one-shot ones first."""
    compose = yaml.safe_load((context / "docker-compose.yml").read_text())
    found: dict[str, Start] = {}
    for name, service in compose["services"].items():
        if service["image"].partition(":")[0] != f"selftaught-{image.name}":
            continue
        command = service.get("command", image.command)
        check = service.get("healthcheck", {})
        health = check["test"][1:] if "test" in check else image.health
        one_shot = service["restart"] == "no"
        start = Start(name, command, one_shot, [] if check.get("disable") else health)
        found.setdefault(shlex.join(command), start)
    return sorted(found.values(), key=lambda start: not start.one_shot)


@contextmanager
def running(
    image: Image, command: list[str], env: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The command as the image would run it, with its log."""
    log = image.folder / "log"
    program = shutil.which(command[0], path=image.environment["PATH"])
    if program is None:
        raise CheckFailed(f"{command[0]} is not in the image")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [program, *command[1:]],
            cwd=image.path("."),
            env={**image.environment, **env},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def check_start(image: Image, start: Start, env: Mapping[str, str]) -> None:
    """The command must become healthy; a one-shot must end with 0."""
    started = time.monotonic()
    with running(image, start.command, env) as (process, log):
        while not is_well(image, start, process, log, env):
            status = process.poll()
            if status is not None and (not start.one_shot or status != 0):
                raise CheckFailed(f"{start.service} ended with {status}:\n{tail(log)}")
            if time.monotonic() - started > READY_SECONDS:
                raise CheckFailed(f"{start.service} did not become healthy:\n{tail(log)}")
            time.sleep(0.5)
        print(f"   {start.service}: well after {time.monotonic() - started:.0f} s", flush=True)
        if start.service == "engine":
            check_answer(process, log)


def is_well(
    image: Image,
    start: Start,
    process: subprocess.Popen[bytes],
    log: Path,
    env: Mapping[str, str],
) -> bool:
    """Ended with 0 (one-shot); else said it is ready and, if it has a check, passes it."""
    if start.one_shot:
        return process.poll() == 0
    if "selftaught.serve" not in start.command and b" ready" not in log.read_bytes():
        return False
    if not start.health:
        return True
    check = [shutil.which(start.health[0], path=image.environment["PATH"]) or start.health[0]]
    done = subprocess.run(
        [*check, *start.health[1:]],
        cwd=image.path("."),
        env={**image.environment, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


def check_answer(process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask the engine process for a server with the shipped small model, and that for a token."""
    started = time.monotonic()
    recipe = Recipe.model_validate({"inference": "vllm", "train": {"method": "full"}})
    lineage = {"engine": engines.lineage(recipe)}
    version = ModelVersion(id="v0", model="m", number=0, path="", sha256="", lineage=lineage)
    with transaction() as session:
        session.merge(version)
    target = engines.target(version, ROOT / "seeds" / "smallworld")
    while not (found := engines.look(target)).servers:
        engines.want(target)
        if found.failed is not None:
            raise CheckFailed(f"vLLM did not start: {found.failed.detail}")
        if process.poll() is not None or time.monotonic() - started > READY_SECONDS:
            raise CheckFailed(f"no vLLM server became ready:\n{tail(log)}")
        time.sleep(1.0)
    body = {"model": target.model, "prompt": [1, 2, 3], "max_tokens": 1}
    answer = httpx.post(f"{found.servers[0].url}/completions", json=body, timeout=60)
    if not answer.is_success or answer.json()["usage"]["completion_tokens"] != 1:
        raise CheckFailed(f"vLLM does not answer: {answer.text[:500]}")
    print(f"   vLLM: answers after {time.monotonic() - started:.0f} s", flush=True)


def has_module(image: Image, module: str) -> bool:
    """Whether the image's Python has `module`."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    python = image.folder / "venv" / "bin" / "python"
    return subprocess.run([python, "-c", code], cwd=image.path("."), check=False).returncode == 0


def check(name: str, context: Path, stack: Stack) -> None:
    """Build one image's stand-in and start everything that runs from it."""
    with tempfile.TemporaryDirectory(prefix=f"selftaught-image-{name}-") as folder:
        image = Image(name, Path(folder).resolve())
        build(image, context)
        if has_module(image, "torch") == (name in WITHOUT_TORCH):
            raise CheckFailed(f"torch must not be in {sorted(WITHOUT_TORCH)}, but in all others")
        port = str(free_port())
        url = make_url(stack.database_url)
        password = Path(folder) / "password"
        password.write_text(f"{url.password}\n")
        env = {
            "DATABASE_URL": url._replace(password=None).render_as_string(hide_password=False),
            "DATABASE_PASSWORD_FILE": str(password),
            "REDIS_URL": stack.redis_url,
            "SELFTAUGHT_NODE": "check",
            "SELFTAUGHT_DEVICES": "cpu",
            "SELFTAUGHT_ENGINE_HOST": "localhost",  # a name, as in the compose file
            "UVICORN_HOST": "127.0.0.1",
            "UVICORN_PORT": port,
        }
        for start in starts(image, context):
            check_start(image, start, env)


def main() -> int:
    """0 if every image asked for is well."""
    names = sys.argv[1:] or IMAGES
    for outside in ("DATABASE_URL", "DATABASE_PASSWORD_FILE", "REDIS_URL"):
        os.environ.pop(outside, None)
    failed = []
    with (
        tempfile.TemporaryDirectory(prefix="selftaught-check-") as home,
        Stack(home, only={"postgres", "redis", "migrations"}) as stack,
    ):
        os.environ["DATABASE_URL"] = stack.database_url  # for what this process itself asks
        for name in names:
            try:
                check(name, ROOT, stack)
            except CheckFailed as failure:
                print(f"== {name}: FAILED: {failure}", flush=True)
                failed.append(name)
            else:
                print(f"== {name}: well", flush=True)
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
