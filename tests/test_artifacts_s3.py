"""Nodes with homes of their own share artifacts through a real S3-speaking server."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import func, select
from starlette.testclient import TestClient

from selftaught import artifacts, engines, jsonl
from selftaught.artifacts import hash_folder, publish_rows, resolve
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Dataset, EngineServer, ModelVersion
from selftaught.engines import want
from selftaught.settings import Settings, get_settings
from selftaught.store import ArtifactDamaged, ArtifactMissing, Store, StoreUnavailable
from selftaught.versions import folder_of
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import run_one
from services.api.main import create_app
from services.engine.node import Node
from services.trainer.tasks import undo_train
from tests.s3 import S3
from tests.test_engines import version
from tests.work import helpers

ROWS = [{"n": i, "text": "é\u2028"} for i in range(3)]
PATH = "jobs/j/1/pair/st_1.0.token.jsonl"
KEY = f"p/artifacts/{PATH}"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket that this process's settings point at."""
    name = s3.new_bucket()
    for variable, value in s3.env.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("SELFTAUGHT_ARTIFACTS_URL", f"s3://{name}/p")
    get_settings.cache_clear()
    yield name
    get_settings.cache_clear()


Go = Callable[[str], Path]


@pytest.fixture
def go(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Go]:
    """Be on the node of this name, whose home comes back."""

    def go(node: str) -> Path:
        monkeypatch.setenv("SELFTAUGHT_HOME", str(tmp_path / node))
        get_settings.cache_clear()
        return tmp_path / node

    go("a")
    yield go
    get_settings.cache_clear()


@pytest.fixture
def away(s3: S3) -> Iterator[S3]:
    """The server, stopped."""
    s3.stop()
    yield s3
    s3.come_back()


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def make_version(home: Path, name: str = "ver_1") -> Path:
    folder = home / "versions" / name
    (folder / "more").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    (folder / "more" / "empty").touch()
    return folder


@pytest.mark.parametrize("rows", [ROWS, []])
def test_what_one_node_publishes_another_reads(go: Go, s3: S3, rows: list[jsonl.Row]) -> None:
    made = publish_rows("pairs", PATH, rows)
    before = resolve(PATH).read_bytes()
    home = go("b")
    assert list(jsonl.read(resolve(PATH))) == rows
    assert resolve(PATH).read_bytes() == before
    assert resolve(PATH).is_relative_to(home) and made.bytes == len(before)
    s3.stop()
    try:
        assert list(jsonl.read(resolve(PATH))) == rows, "it is asked for once"
    finally:
        s3.come_back()


def test_a_version_is_the_same_on_every_node(go: Go, tmp_path: Path) -> None:
    made = make_version(go("a"))
    artifacts.share(made)
    home = go("b")
    found = folder_of("ver_1")
    assert found == home / "versions" / "ver_1"
    assert hash_folder(found) == hash_folder(made) and files(found) == files(made)
    assert os.listdir(home / "versions") == ["ver_1"]
    assert folder_of(str(tmp_path)) == tmp_path, "a base model is where it is"


def test_homes_may_be_links(go: Go, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (go("a")).mkdir()
    (go("a") / "artifacts").symlink_to(tmp_path / "disk")
    publish_rows("pairs", PATH, ROWS)
    go("b")
    assert list(jsonl.read(resolve(PATH))) == ROWS


def test_what_is_missing_is_told_as_such(go: Go, s3: S3, bucket: str) -> None:
    with pytest.raises(ArtifactMissing, match="jobs/none"):
        resolve("jobs/none.jsonl")
    folder = make_version(go("a"))
    artifacts.share(folder)
    s3.client.delete_object(Bucket=bucket, Key="p/versions/ver_1/model.safetensors")
    home = go("b")
    with pytest.raises(ArtifactMissing, match=r"model\.safetensors"):
        folder_of("ver_1")
    assert files(home) == [] and os.listdir(home / "versions") == []


def test_a_folder_that_was_put_by_half_is_not_there(go: Go, s3: S3, bucket: str) -> None:
    """The manifest comes last."""
    artifacts.share(make_version(go("a")))
    s3.client.delete_object(Bucket=bucket, Key="p/versions/ver_1.manifest.json")
    go("b")
    with pytest.raises(ArtifactMissing, match="ver_1"):
        folder_of("ver_1")


@pytest.mark.parametrize("key", [KEY, f"{KEY}.manifest.json"])
def test_what_is_damaged_is_never_read(go: Go, s3: S3, bucket: str, key: str) -> None:
    publish_rows("pairs", PATH, ROWS)
    s3.client.put_object(Bucket=bucket, Key=key, Body=s3.body(bucket, key)[:-2] + b"?\n")
    home = go("b")
    with pytest.raises(ArtifactDamaged, match="jobs/j/1/pair"):
        resolve(PATH)
    assert files(home) == []


def test_a_manifest_cannot_name_files_elsewhere(go: Go, s3: S3, bucket: str) -> None:
    artifacts.share(make_version(go("a")))
    key = "p/versions/ver_1.manifest.json"
    body = s3.body(bucket, key).replace(b"config.json", b"../../evil.json")
    s3.client.put_object(Bucket=bucket, Key=key, Body=body)
    home = go("b")
    with pytest.raises(ArtifactDamaged, match="evil"):
        folder_of("ver_1")
    assert files(home) == []
    with pytest.raises(ValueError, match="leaves its folder"):
        resolve("../outside")


def test_what_was_put_is_never_written_again(go: Go, s3: S3, bucket: str) -> None:
    """Two trainers make the probe adapter of one base: those who have the first keep it."""
    artifacts.share(make_version(go("a"), "probe-1"))
    other = make_version(go("b"), "probe-1")
    (other / "config.json").write_text('{"other": 1}')
    artifacts.share(other)
    assert s3.body(bucket, "p/versions/probe-1/config.json") == b"{}"


def test_of_many_on_a_node_one_fetches(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_version(go("a"))
    artifacts.share(made)
    home = go("b")
    unfinished = home / "versions" / ".fetching-ver_1"
    unfinished.mkdir(parents=True)
    (unfinished / "model.safetensors").write_bytes(b"what a killed process left")
    fetched: list[str] = []
    real = Store.get

    def get(self: Store, key: str, local: Path) -> None:
        fetched.append(key)
        real(self, key, local)

    monkeypatch.setattr(Store, "get", get)
    hashes: list[str] = []
    start = threading.Barrier(8)

    def one() -> None:
        start.wait()
        hashes.append(hash_folder(folder_of("ver_1")))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hashes == [hash_folder(made)] * 8
    assert fetched == ["versions/ver_1"]
    assert os.listdir(home / "versions") == ["ver_1"]


def test_a_store_that_is_away_leaves_nothing_behind(go: Go, away: S3) -> None:
    home = go("a")
    with pytest.raises(StoreUnavailable, match="jobs/j/1/pair"):
        publish_rows("pairs", PATH, ROWS)
    folder = make_version(home)
    with pytest.raises(StoreUnavailable):
        artifacts.share(folder)
    with pytest.raises(StoreUnavailable):
        resolve("jobs/none.jsonl")
    assert files(home) == []
    away.come_back()
    publish_rows("pairs", PATH, ROWS)
    assert list(jsonl.read(resolve(PATH))) == ROWS
    away.stop()


def test_a_bucket_that_is_not_there_is_no_missing_artifact(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFTAUGHT_ARTIFACTS_URL", "s3://no-such-bucket")
    get_settings.cache_clear()
    with pytest.raises(StoreUnavailable, match="bucket does not exist"):
        publish_rows("pairs", PATH, ROWS)


def test_what_no_row_names_is_removed_here_and_there(
    go: Go, s3: S3, bucket: str, database: object
) -> None:
    home = go("a")
    made = publish_rows("pairs", PATH, ROWS)
    artifacts.share(make_version(home))
    assert len(s3.keys(bucket)) == 6
    artifacts.discard(made)
    undo_train(Result(extra={"id": "ver_1"}))
    assert s3.keys(bucket) == set() and files(home) == []


def test_a_store_that_is_away_does_not_keep_the_local_file(
    go: Go, s3: S3, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = publish_rows("pairs", PATH, ROWS)
    s3.stop()
    artifacts.discard(made)
    s3.come_back()
    assert files(go("a")) == [] and "left in the store" in caplog.text
    assert KEY in s3.keys(bucket)


def test_only_s3_is_a_store() -> None:
    for url in ("/data/shared", "s3://", "gs://bucket"):
        with pytest.raises(ValidationError, match="artifacts_url"):
            Settings(artifacts_url=url)


# ---------------------------------------------------------------- in the kernel


def test_chunks_of_one_job_run_on_several_nodes(
    database: object, go: Go, s3: S3, bucket: str
) -> None:
    """Each chunk on another node than the one before; what is read comes from the bucket."""
    read: list[int] = []

    def curate(lease: Lease) -> Result:
        for path in lease.input["judgments"]:
            read.append(len(list(jsonl.read(resolve(path)))))
        return Result(artifact=publish_rows("curate", lease.path("curate"), ROWS))

    job = helpers.make_job()
    nodes = ["a", "b"]
    while chunks := helpers.ready(job):
        go(nodes[0])
        nodes.reverse()
        assert run_one(chunks[0], "test", helpers.with_run("curate", curate))
    assert helpers.job(job).state == "succeeded"
    assert read == [4] * 4
    with transaction() as session:
        paths = set(session.scalars(select(Artifact.path)))
    assert len(paths) > 8
    assert {f"p/artifacts/{path}" for path in paths} <= s3.keys(bucket)
    made = [set(files(go(node) / "artifacts")) for node in ("a", "b")]
    assert paths - made[0] and paths - made[1], "neither home has it all"


def test_a_chunk_waits_for_a_store_that_is_away(database: object, go: Go, s3: S3) -> None:
    job = helpers.make_job()
    helpers.drain(job, until="select")
    (chunk,) = helpers.ready(job)
    s3.stop()
    try:
        assert run_one(chunk, "test", helpers.HANDLERS) is False
    finally:
        s3.come_back()
    row = helpers.chunk(chunk)
    assert (row.state, row.attempt) == ("ready", 1)
    assert row.error is not None
    assert (row.error["code"], row.error["fault"]) == ("artifact_store_unavailable", "system")
    (told,) = (e.data for e in helpers.events(job) if e.type == "chunk.requeued")
    assert told["delay_seconds"] == 60
    helpers.drain(job)
    assert helpers.job(job).state == "succeeded"


def test_a_job_whose_artifact_is_missing_fails_as_such(database: object, go: Go) -> None:
    def judge(lease: Lease) -> Result:
        resolve(lease.input["pairs"])
        raise AssertionError("it is missing")

    job = helpers.make_job()
    helpers.drain(job, until="judge")
    with transaction() as session:
        artifact = session.scalars(select(Artifact).where(Artifact.kind == "pair")).all()
    for one in artifact:
        artifacts.remove(resolve(one.path))
    run_one(helpers.ready(job)[0], "test", helpers.with_run("judge", judge))
    failed = helpers.job(job)
    assert failed.state == "failed" and failed.error is not None
    assert failed.error["code"] == "artifact_missing"
    assert helpers.chunk(helpers.chunk_of(job, "judge")).attempt == 1, "no further attempt"


# ---------------------------------------------------------------- over HTTP


@pytest.fixture
def client(database: object, go: Go) -> Iterator[TestClient]:
    go("gateway")
    with TestClient(create_app(), "http://localhost", raise_server_exceptions=False) as found:
        yield found


def upload(client: TestClient) -> object:
    headers = {"content-type": "text/plain"}
    return client.post("/v1/datasets", content="say a\nsay b\n", headers=headers)


def test_the_gateway_reads_what_workers_elsewhere_made(
    client: TestClient, go: Go, s3: S3, bucket: str
) -> None:
    go("a")
    job = helpers.make_job()
    helpers.drain(job)
    home = go("gateway")
    answer = client.get(f"/v1/jobs/{job}/data/1/pair?format=parquet")
    assert answer.status_code == 200 and answer.content[:4] == b"PAR1"
    answer = client.get(f"/v1/jobs/{job}/data/1/pair")
    assert len(answer.text.splitlines()) == 4 * 2
    for file in home.rglob("*.jsonl"):
        file.unlink()
    for key in s3.keys(bucket):
        s3.client.delete_object(Bucket=bucket, Key=key)
    answer = client.get(f"/v1/jobs/{job}/data/1/pair")
    assert (answer.status_code, answer.json()["code"]) == (500, "artifact_missing")


def test_an_upload_that_the_store_does_not_take_leaves_nothing(
    client: TestClient, s3: S3, tmp_path: Path
) -> None:
    s3.stop()
    try:
        answer = upload(client)
    finally:
        s3.come_back()
    assert answer.status_code == 503 and "retry-after" in answer.headers
    assert answer.json()["code"] == "artifact_store_unavailable"
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0
    assert files(tmp_path) == []
    assert upload(client).status_code == 201


# ---------------------------------------------------------------- on an engine node


@pytest.mark.parametrize("there", [True, False])
def test_a_node_fetches_trained_weights_before_it_serves_them(
    database: object, go: Go, there: bool
) -> None:
    folder = make_version(go("a"), "v1")
    row: ModelVersion = version("v1", "v1", train={"method": "full"})
    with transaction() as session:
        session.add(row)
    wanted = engines.target(row, folder)
    if there:
        artifacts.share(folder)
    want(wanted)
    home = go("b")
    node = Node(Settings(home=home, vllm_python=Path(sys.executable), devices="cpu"), ["cpu"])
    try:
        deadline = time.monotonic() + 120
        while (found := servers()) == [] and time.monotonic() < deadline:
            node.tick()
        (server,) = found
        assert (home / "versions" / "v1").is_dir() == there
        if not there:
            assert server.state == "failed" and server.error["code"] == "artifact_missing"
    finally:
        node.close()


def servers() -> list[EngineServer]:
    with transaction() as session:
        return list(session.scalars(select(EngineServer)))
