"""The files of a trained version, taken away over HTTP."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from selftaught.artifacts import hash_folder
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.settings import get_settings
from tests.api.conftest import assert_problem
from tests.api.helpers import add_versions

FILES = "/v1/models/m/versions/1/files"
CONTENT = {"adapter_config.json": b"{}", "adapter_model.safetensors": bytes(range(256)) * 9000}


@pytest.fixture
def folder(client: TestClient) -> Path:
    """m:1 has files, m:0 is a base model, and m:2 has lost its folder."""
    add_versions("m", [0, 1, 2])
    home = get_settings().versions_dir / "m" / "1"
    home.mkdir(parents=True)
    for name, content in CONTENT.items():
        (home / name).write_bytes(content)
    (home / "link.json").symlink_to("/etc/hostname")
    (home / "inside").mkdir()
    with transaction() as session:
        base = session.scalars(select(ModelVersion).where(ModelVersion.number == 0)).one()
        base.path = str(home)
    return home


def test_all_files_are_listed_and_come_as_they_are(client: TestClient, folder: Path) -> None:
    listed = client.get(FILES).json()
    assert [(one["name"], one["bytes"]) for one in listed["data"]] == [
        (name, len(content)) for name, content in sorted(CONTENT.items())
    ]
    total = hashlib.sha256()
    for one in listed["data"]:
        answer = client.get(one["url"])
        assert answer.content == CONTENT[one["name"]]
        assert answer.headers["content-length"] == str(one["bytes"])
        assert answer.headers["content-type"] == "application/octet-stream"
        assert one["name"] in answer.headers["content-disposition"]
        total.update(f"{one['name']}\0{hashlib.sha256(answer.content).hexdigest()}\n".encode())
    (folder / "link.json").unlink()
    assert total.hexdigest() == hash_folder(folder)  # what a version's sha256 is of


def test_nothing_else_is_given(client: TestClient, folder: Path) -> None:
    (folder.parent / "secret").write_text("hidden words")
    for name in ("config.json", "link.json", "inside", "..%2fsecret", "%2e%2e%2fsecret"):
        answer = client.get(f"{FILES}/{name}")
        assert answer.status_code == 404 and "hidden" not in answer.text
    assert_problem(client.get(f"{FILES}/none"), 404, "no_such_file", "file")
    for number, code in ((0, "no_files"), (2, "no_files"), (7, "unknown_model")):
        for more in ("", "/adapter_config.json"):
            answer = client.get(f"/v1/models/m/versions/{number}/files{more}")
            assert_problem(answer, 404, code)
