"""Datasets, jobs and versions to ask the gateway about."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from selftaught import aliases
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.ids import new_id

RECIPE: dict[str, Any] = {"name": "tiny", "iterations": 1, "validate": {"instructions": 2}}


def upload(client: TestClient, rows: int = 5) -> str:
    """The id of a new dataset of instructions."""
    body = "".join(f"say {i}\n" for i in range(rows))
    answer = client.post("/v1/datasets", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def upload_labelled(client: TestClient) -> str:
    answer = client.post(
        "/v1/datasets?kind=labelled",
        content='{"instruction":"i","chosen":"a","rejected":"b"}',
        headers={"content-type": "application/x-ndjson"},
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def post_job(client: TestClient, dataset: str, **fields: Any) -> Any:
    """The answer to a new job."""
    body = json.dumps({"dataset": dataset, "recipe": RECIPE} | fields)
    return client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})


def add_versions(
    model: str,
    numbers: list[int],
    latest: int | None = None,
    lineage: dict[str, Any] | None = None,
) -> None:
    """Versions without weights."""
    with transaction() as session:
        for number in numbers:
            session.add(
                ModelVersion(
                    id=new_id("ver"),
                    model=model,
                    number=number,
                    path=f"{model}/{number}",
                    sha256=str(number),
                    lineage=lineage or {"seed": 0},
                )
            )
        session.flush()
        if latest is not None:
            aliases.move(session, model, "latest", latest, "gate")


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The URL of an app on a real server in a thread: answers come as they are written."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
