"""What the adapters for other libraries do by themselves; with those libraries: tests/ecosystem."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from selftaught import ApiError, Client
from selftaught.artifacts import hash_folder, publish_rows
from selftaught.client import Job
from selftaught.client.files import DamagedDownload, child
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.integrations.hf import export_dataset
from selftaught.integrations.tracking import track
from selftaught.integrations.trl import PairwiseJudge, WinRate
from selftaught.settings import get_settings
from selftaught.work.kernel import Result
from selftaught.work.worker import Handler
from services.api.main import create_app as gateway_app
from services.evaluator import judge as service
from services.evaluator.main import create_app as evaluator_app
from tests.api.helpers import add_versions, served
from tests.api.test_evaluator import Engine
from tests.api.test_judge_stream import LINEAGE
from tests.conftest import Servers
from tests.work import helpers

ROW = {"prompt": [{"role": "user", "content": "größer"}], "completion": []}


@pytest.fixture
def judging(database: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A judge that prefers whatever says "good"."""
    engine = Engine()
    monkeypatch.setattr(service, "open_version", lambda version, patience: engine)
    add_versions("m", [0], latest=0, lineage=LINEAGE)
    with served(evaluator_app()) as evaluator:
        monkeypatch.setattr(get_settings(), "evaluator_url", evaluator)
        with served(gateway_app()) as url, Client(url, timeout=30) as client:
            yield client


def test_a_judge_in_trls_shape(judging: Client) -> None:
    judge = PairwiseJudge(judging, workers=2)
    pairs = [["good", "bad"], ["bad", "good"]]
    assert judge.judge(["i", "j"], pairs) == [0, 1]
    assert judge.judge(["i", "j"], pairs, return_scores=True) == [1.0, 0.0]
    said = [{"role": "assistant", "content": "good"}]
    asked = [{"role": "user", "content": "i", "name": None}]
    assert judge.judge([asked], [[said, "bad"]], shuffle_order=False) == [0]
    with pytest.raises(ValueError):
        judge.judge(["i"], pairs)
    with pytest.raises(ApiError, match="unknown_model"):
        PairwiseJudge(judging, model="none").judge(["i"], pairs[:1])


def test_rewards_of_the_completions_of_a_prompt(judging: Client) -> None:
    reward = WinRate(judging)
    found = reward(["i", "j", "i", "alone"], ["bad", "good", "good", "x"], trainer_state=None)
    assert found == [0.0, None, 1.0, None]
    assert reward.__name__ == "win_rate"
    with pytest.raises(ValueError, match="65"):
        reward(["i"] * 65, ["good"] * 65)


@pytest.fixture
def done(client: Client) -> Job:
    """A finished job of one iteration with examples."""
    name = helpers.make_job()
    handlers = dict(helpers.HANDLERS)
    handlers["curate"] = Handler(
        lambda lease: Result(artifact=publish_rows("examples", lease.path("curate"), [ROW] * 3))
    )
    helpers.drain(name, handlers)
    return client.jobs.get(name)


def test_an_export_says_where_it_came_from(done: Job, tmp_path: Path) -> None:
    folder = export_dataset(done, 1, tmp_path / "out")
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    (config,) = yaml.safe_load(header)["configs"]
    assert config["config_name"] == "curate" and f"`{done.id}:0`" in text
    (file,) = config["data_files"]
    found = pq.read_table(folder / file["path"]).to_pylist()
    assert len(found) == 3 and found[0]["prompt"] == ROW["prompt"]
    with pytest.raises(FileExistsError):
        export_dataset(done, 1, folder)
    with pytest.raises(ValueError, match="curate"):
        export_dataset(done, 1, tmp_path / "none", ["poems"])
    with pytest.raises(ApiError, match="not_found"):
        export_dataset(done, 9, tmp_path / "none")
    assert not (tmp_path / "none").exists()


class Notes:
    """A sink that keeps everything, and dies once after an iteration."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.logged: dict[int, Mapping[str, float]] = {}
        self.records: list[Mapping[str, Any]] = []
        self.ended: list[str] = []
        self.dies = True

    def begin(self, job: Job) -> None:
        self.begun.append(job.id)

    def has(self, iteration: int) -> bool:
        return iteration in self.logged

    def log(self, iteration: int, metrics: Mapping[str, float], record: Mapping[str, Any]) -> None:
        assert iteration not in self.logged
        self.logged[iteration] = metrics
        self.records.append(record)
        if self.dies:
            self.dies = False
            raise KeyboardInterrupt

    def end(self, job: Job) -> None:
        self.ended.append(str(job.state))


def test_who_tracks_a_job_again_logs_the_rest(done: Job) -> None:
    notes = Notes()
    with pytest.raises(KeyboardInterrupt):
        track(done, notes)
    assert list(notes.logged) == [0] and not notes.ended
    track(done, notes)
    track(done, notes)
    assert list(notes.logged) == [0, 1] and notes.ended == ["succeeded"] * 2
    assert notes.records[1]["manifest"]["version"] == f"{done.id}:1"
    assert json.dumps(notes.records) and all(
        isinstance(one, float) for one in notes.logged[1].values()
    )
    assert notes.logged[1]["counts/judge_rows"] == 16


def test_a_versions_files_are_downloaded_whole_or_not_at_all(
    client: Client, tmp_path: Path
) -> None:
    add_versions("m", [0])
    home = get_settings().versions_dir / "m" / "0"
    home.mkdir(parents=True)
    settings = {"base_model_name_or_path": "/far/away", "r": 8}
    (home / "adapter_config.json").write_text(json.dumps(settings))
    (home / "adapter_model.safetensors").write_bytes(b"weights" * 9)
    with pytest.raises(DamagedDownload, match="sha256"):
        client.models.download("m", 0, tmp_path / "out")
    with transaction() as session:
        session.query(ModelVersion).one().sha256 = hash_folder(home)
    assert [one.bytes for one in client.models.files("m", 0)] == [48, 63]
    folder = client.models.download("m", 0, tmp_path / "out")
    assert hash_folder(folder) == hash_folder(home)
    with pytest.raises(FileExistsError):
        client.models.download("m", 0, folder)
    named = client.models.download("m", 0, tmp_path / "named", base="org/base")
    assert json.loads((named / "adapter_config.json").read_text()) == {
        "base_model_name_or_path": "org/base", "r": 8,
    }  # fmt: skip
    assert sorted(one.name for one in tmp_path.iterdir() if "out" in one.name or one == named) == [
        "named", "out",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", ".", "..", "a/b"])
def test_a_gateway_does_not_choose_where_files_go(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="called"):
        child(tmp_path, name)
    assert child(tmp_path, "a.json") == tmp_path / "a.json"
