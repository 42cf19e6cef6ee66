"""A client that openapi-python-client makes from the gateway's own document, and its calls.

Over real HTTP: generated client, gateway, evaluator, and the shipped seed as the model.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

import seeds
from selftaught import aliases
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.settings import get_settings
from services.api.main import create_app
from services.evaluator.main import create_app as create_evaluator
from tests.api.helpers import served
from tests.conftest import Servers

NAME = "selftaught_client"
AS_BYTES = (
    "application/vnd.apache.parquet",
    "application/x-ndjson",
    "text/csv",
    "text/plain",
)
"""Media types that the generator does not know by itself; docs/judge.md tells users so."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The package, importable under its name; nothing of the document was left out."""
    folder = tmp_path_factory.mktemp("generated")
    source = folder / "openapi.json"
    source.write_text(json.dumps(create_app().openapi()))
    settings = ConfigFile(
        post_hooks=[],
        content_type_overrides=dict.fromkeys(AS_BYTES, "application/octet-stream"),
    )
    config = Config.from_sources(
        settings, MetaType.NONE, source, "utf-8", overwrite=True, output_path=folder / NAME
    )
    problems = generate(config=config)
    assert not problems, "\n".join(f"{one.header} {one.detail}" for one in problems)
    sys.path.insert(0, str(folder))
    yield NAME
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
        del sys.modules[name]


@pytest.fixture
def gateway(database: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address; behind it an evaluator whose only model is the shipped seed."""
    with transaction() as session:
        session.add(
            ModelVersion(
                id="ver_0", model="seed", number=0, sha256="0",
                path=str(Path(str(seeds.__file__)).parent / "smallworld"),
                lineage={
                    "template": {"name": "smallworld"},
                    "inference": "local",
                    "judge_max_tokens": 64,
                    "judge_sampling": {"temperature": 0.7, "max_tokens": 64},
                },
            )
        )  # fmt: skip
        session.flush()
        aliases.move(session, "seed", "latest", 0, "test")
    with served(create_evaluator()) as evaluator:
        monkeypatch.setattr(get_settings(), "evaluator_url", evaluator)
        with served(create_app()) as found:
            yield found


def test_every_operation_can_be_called(generated: str) -> None:
    for methods in create_app().openapi()["paths"].values():
        for operation in methods.values():
            (tag,) = operation["tags"]
            module = importlib.import_module(f"{generated}.api.{tag}.{operation['operationId']}")
            assert callable(module.sync_detailed) and callable(module.asyncio_detailed)


def test_calls(generated: str, gateway: str) -> None:
    client = importlib.import_module(generated).Client(base_url=gateway, timeout=60)
    models: Any = importlib.import_module(f"{generated}.models")
    judge = importlib.import_module(f"{generated}.api.judge.judge")
    body = models.JudgeIn(
        instruction="Swap the first and the last letter: m f q",
        response_a="q f m",
        response_b="q m",
        explain=True,
    )
    out = judge.sync(client=client, body=body)
    assert isinstance(out, models.JudgeOut)
    assert (out.model, out.template, [one.order for one in out.orders]) == (
        "seed:0",
        "smallworld",
        ["AB", "BA"],
    )
    assert out.verdict in ("A", "B", "tie") and "[[" in out.orders[0].reasoning
    assert 0 < out.latency.engine <= out.latency.total

    body.model = "nobody"
    answer = judge.sync_detailed(client=client, body=body)
    assert answer.status_code == 404 and isinstance(answer.parsed, models.Problem)
    assert (answer.parsed.code, answer.parsed.status) == ("unknown_model", 404)
    assert answer.parsed.request_id == answer.headers["x-request-id"]

    body.votes = 65
    refused = judge.sync(client=client, body=body)
    assert refused.errors[0].additional_properties["field"] == "votes"


def test_a_file_goes_up_and_its_dataset_comes_back(generated: str, gateway: str) -> None:
    client = importlib.import_module(generated).Client(base_url=gateway, timeout=60)
    models: Any = importlib.import_module(f"{generated}.models")
    types: Any = importlib.import_module(f"{generated}.types")
    upload = importlib.import_module(f"{generated}.api.datasets.upload_dataset")
    get = importlib.import_module(f"{generated}.api.datasets.get_dataset")
    file = types.File(payload=b"say 1\nsay 2\n", file_name="two.txt", mime_type="text/plain")
    made = upload.sync(client=client, body=models.UploadDatasetFilesBody(file=file))
    assert isinstance(made, models.DatasetOut), made
    assert get.sync(client=client, dataset_id=made.id) == made
    assert (made.name, made.rows, made.benchmark) == ("two.txt", 2, None)
