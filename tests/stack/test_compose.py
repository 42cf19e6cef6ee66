"""docker-compose.yml and the Dockerfiles say the same as the embedded stack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftaught.settings import Settings
from selftaught.stack.services import services
from selftaught.stack.spec import StackConfig

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {
    name: service
    for name, service in COMPOSE["services"].items()
    if service["image"].startswith("selftaught-")
}
AWS = {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}
NOT_SETTINGS = {"OMP_NUM_THREADS", *AWS}  # boto reads its own


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
    specs = services(StackConfig(home=".", generator_workers=1), 1, 2)
    names = {"gateway": "api", "generator1": "generator", "trainer1": "trainer"}
    embedded = {names.get(spec.name, spec.name): spec for spec in specs}
    assert set(embedded) == set(OURS) - {"migrate"}
    for name, spec in embedded.items():
        image = OURS[name]["image"].removeprefix("selftaught-")
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


@pytest.mark.parametrize("name", sorted(set(OURS) - {"migrate"}))
def test_services_share_their_files_and_wait_for_the_schema(name: str) -> None:
    service = OURS[name]
    assert service["environment"]["SELFTAUGHT_HOME"] == "/data"
    models = "${SELFTAUGHT_MODELS_DIR:-./models}:/models:ro"
    assert service["volumes"] == ["home:/data", models]
    assert service["environment"]["SELFTAUGHT_MODELS_DIR"] == "/models"
    assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"


def test_images_are_built_from_dockerfiles_that_are_there() -> None:
    for name, service in OURS.items():
        image = service["image"].removeprefix("selftaught-")
        assert service["build"]["dockerfile"] == f"services/{image}/Dockerfile", name
        text = (ROOT / service["build"]["dockerfile"]).read_text()
        assert f'pip install ".[{image}]" -c constraints.txt' in text
        assert "\nUSER selftaught\n" in text
        assert "\nHEALTHCHECK " in text
        assert ("torch==" in text) == (image != "api")


def test_only_the_gateway_is_published_and_only_on_this_machine() -> None:
    published = {name: s["ports"] for name, s in COMPOSE["services"].items() if "ports" in s}
    assert published == {"api": ["${SELFTAUGHT_BIND:-127.0.0.1}:8080:8080"]}


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    def config(**extra: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **extra}
        command = ["docker-compose", "--project-directory", str(tmp_path)]
        return subprocess.run(
            [*command, "-f", str(ROOT / "docker-compose.yml"), "config", "-q"],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    done = config(POSTGRES_PASSWORD="secret")
    assert done.returncode == 0, done.stderr
    # no password, no start
    assert config().returncode != 0
