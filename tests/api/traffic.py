"""Two evaluators and a gateway on the same Postgres; each version has an engine of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from selftaught import aliases
from selftaught.database import transaction
from selftaught.database.tables import (
    CanaryVerdict,
    Evaluation,
    Job,
    LoggedVerdict,
    ModelVersion,
)
from selftaught.inference import ModelLoadError
from services.api.main import create_app as create_gateway
from services.evaluator import judge as service
from services.evaluator.main import create_app
from tests.api.test_evaluator import GOOD_FIRST, Engine
from tests.conftest import Servers

ALIAS = "/v1/models/m/aliases/latest"


@dataclass
class World:
    """Versions m:0 .. m:3; `latest` names m:0. Opening one of `broken` fails."""

    gateway: TestClient
    replicas: list[TestClient] = field(default_factory=list)
    engines: dict[int, Engine] = field(default_factory=lambda: {n: Engine() for n in range(4)})
    broken: set[int] = field(default_factory=set)
    opened: list[int] = field(default_factory=list)

    def open(self, version: ModelVersion, patience: float) -> Engine:
        self.opened.append(version.number)
        if version.number in self.broken:
            raise ModelLoadError("no weights")
        return self.engines[version.number]

    def ask(self, replica: int = 0, **change: Any) -> dict[str, Any]:
        answer = self.replicas[replica].post("/judge", json=question(**change))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def canary(self, **change: Any) -> dict[str, Any]:
        """Begin one; by default m:1 in place of m:0, always."""
        body = {"version": 1, "mode": "share", "share": 1.0, "prepare": False, **change}
        answer = self.gateway.put(ALIAS + "/canary", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def report(self, canary: dict[str, Any]) -> dict[str, Any]:
        return dict(self.gateway.get(f"/v1/canaries/{canary['id']}/report").json())


def question(**change: Any) -> dict[str, Any]:
    return {**GOOD_FIRST, "explain": False, "model": "m", **change}


def move(number: int) -> None:
    with transaction() as session:
        aliases.move(session, "m", "latest", number, "test")


def logged() -> list[LoggedVerdict]:
    with transaction() as session:
        return list(session.scalars(select(LoggedVerdict).order_by(LoggedVerdict.id)))


def noted() -> list[tuple[str, str]]:
    """Arm and verdict of all that canaries found."""
    with transaction() as session:
        rows = session.scalars(select(CanaryVerdict))
        return sorted((row.arm, row.verdict) for row in rows)


@pytest.fixture
def world(database: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("services.evaluator.recorder.FLUSH_SECONDS", 0.02)
    with transaction() as session:
        session.add(Job(id="job_0", state="succeeded", model="m", recipe={"name": "r"}))
        session.flush()
        for number in range(4):
            lineage = {
                "template": {"name": "mt-bench"}, "inference": "local", "judge_max_tokens": 77,
                "judge_sampling": {"temperature": 0.5, "max_tokens": 9},
            }  # fmt: skip
            session.add(
                ModelVersion(
                    id=f"ver_{number}", model="m", number=number, path="x", sha256="x",
                    lineage=lineage,
                )
            )  # fmt: skip
            session.flush()
            metrics = {"strict_accuracy": 0.9, "position_bias": 0.0, "parse_failures": 0.0}
            session.add(  # all the same, so that the gate lets each go anywhere
                Evaluation(
                    id=f"ev_{number}", version_id=f"ver_{number}", job_id="job_0", set="heldout",
                    metrics=metrics,
                )
            )  # fmt: skip
    move(0)
    with ExitStack() as stack:
        gateway = stack.enter_context(
            TestClient(create_gateway(), "http://localhost", raise_server_exceptions=False)
        )
        found = World(gateway)
        monkeypatch.setattr(service, "open_version", found.open)
        for _ in range(2):
            app = TestClient(create_app(), "http://localhost", raise_server_exceptions=False)
            found.replicas.append(stack.enter_context(app))
        yield found
