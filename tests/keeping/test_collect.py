"""The garbage collector: what is needed stays, what is not goes, rows and files together."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from starlette.testclient import TestClient

from selftaught import aliases, canaries
from selftaught.artifacts import hash_folder, publish_rows, share
from selftaught.database import transaction
from selftaught.database.tables import (
    Artifact,
    CanaryVerdict,
    Chunk,
    Event,
    Iteration,
    Job,
    ModelVersion,
    Review,
    ReviewItem,
    Stage,
)
from selftaught.ids import new_id
from selftaught.keeping import erase
from selftaught.keeping.collect import collect
from selftaught.keeping.locks import COLLECTING, REMOVING, Held, session_lock
from selftaught.settings import get_settings
from selftaught.work import control, kernel, pipeline
from tests.api.conftest import assert_problem, client
from tests.keeping.conftest import empty, point_at
from tests.keeping.test_backup import READERS, middle_of_a_job
from tests.s3 import S3
from tests.work.helpers import drain, make_dataset, make_job

__all__ = ["client"]

pytestmark = pytest.mark.usefixtures("database")

TOKEN = "0123456789abcdef"


def paths(top: str = "artifacts") -> set[str]:
    root = get_settings().home / top
    return {str(one.relative_to(root)) for one in root.rglob("*") if one.is_file()}


def named() -> set[str]:
    with transaction() as session:
        found = set(session.scalars(select(Artifact.path)))
    return found | {one.replace(".jsonl", ".manifest.json") for one in found}


def write(path: str) -> Path:
    file = get_settings().home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}\n")
    return file


def add_version(
    model: str, number: int, parent: str | None = None, job: str | None = None
) -> ModelVersion:
    """A version with weights on disk."""
    version_id = new_id("ver")
    write(f"versions/{version_id}/model.safetensors")
    with transaction() as session:
        version = ModelVersion(
            id=version_id,
            model=model,
            number=number,
            path=version_id,
            sha256=hash_folder(get_settings().versions_dir / version_id),
            lineage={},
            parent_id=parent,
            job_id=job,
        )
        session.add(version)
    return version


def end_long_ago(job_id: str, days: float = 1000) -> None:
    with transaction() as session:
        session.execute(
            text(
                "UPDATE jobs SET state = 'succeeded', finished_at = now() - :d * interval '1 day'"
                " WHERE id = :id"
            ),
            {"id": job_id, "d": days},
        )
        session.execute(
            text("UPDATE chunks SET state = 'cancelled' WHERE job_id = :id AND state = 'ready'"),
            {"id": job_id},
        )


def ended_job(kind: str = "loop") -> str:
    """A job with two files and an event that ended long ago."""
    job_id = new_id("job")
    with transaction() as session:
        session.add(Job(id=job_id, kind=kind, state="running", model="m", recipe={"iterations": 1}))
        session.flush()
        iteration = Iteration(id=new_id("it"), job_id=job_id, number=0, state="succeeded")
        session.add(iteration)
        session.flush()
        stage = Stage(
            id=new_id("st"), job_id=job_id, iteration_id=iteration.id, kind="pair", position=0,
            state="succeeded", chunks=1,
        )  # fmt: skip
        session.add_all([stage, Event(job_id=job_id, seq=1, type="job.created", data={})])
        session.flush()
        chunk = Chunk(
            id=f"{stage.id}.0", job_id=job_id, stage_id=stage.id, position=0, kind="pair",
            queue="generator", state="ready", input={},
        )  # fmt: skip
        session.add(chunk)
    for at, place in enumerate(("pair", "pair_dropped")):
        path = f"jobs/{job_id}/0/{place}/{chunk.id}.{TOKEN}.jsonl"
        published = publish_rows("pair", path, [{"n": at}])
        with transaction() as session:
            artifact = Artifact(id=new_id("art"), **published.__dict__)
            session.add(artifact)
            session.flush()
            if at == 0:
                session.get_one(Chunk, chunk.id).artifact_id = artifact.id
    end_long_ago(job_id)
    return job_id


def test_the_file_of_a_holder_stays_until_its_row_is_there() -> None:
    _, lease = middle_of_a_job()
    result = READERS[lease.kind].run(lease)  # published, and no row yet
    half = write(
        f"artifacts/jobs/{lease.job_id}/1/judge/.{lease.chunk_id}.{lease.token}.jsonl.7.tmp"
    )
    collect(safe_seconds=0)
    assert half.exists()
    assert kernel.publish(lease, result)
    collect(safe_seconds=0)
    assert paths() == named() and not half.exists()
    assert result.artifact is not None and result.artifact.path in paths()


def test_the_file_of_a_holder_that_was_killed_goes_at_once() -> None:
    _, lease = middle_of_a_job()
    result = READERS[lease.kind].run(lease)
    kernel.let_go(lease)
    report = collect()
    assert result.artifact is not None and result.artifact.path not in paths()
    assert report.removed["files without a row"] == (2, report.bytes)
    assert report.bytes > result.artifact.bytes
    assert paths() == named()


def test_uploads_and_weights_without_a_row_go_by_their_age() -> None:
    version = add_version("m", 0)
    upload = write("artifacts/datasets/ds_1.jsonl")
    half = write("artifacts/batches/.batch_1.jsonl.123.tmp")
    weights = write("versions/ver_gone/model.safetensors")
    fetched = write("versions/.fetching-ver_x/model.safetensors")
    mine = [
        write("artifacts/notes.txt"), write("artifacts/datasets/README.jsonl.txt"),
        write("versions/probe-123/adapter_model.safetensors"), write("models/base/config.json"),
        write("versions/something/else"), write(f"versions/{version.path}/config.json"),
    ]  # fmt: skip
    collect(safe_seconds=3600)
    assert all(path.exists() for path in (upload, half, weights, fetched))
    report = collect(safe_seconds=0)
    assert report.removed["files without a row"][0] == 4
    assert not any(path.exists() for path in (upload, half, weights.parent, fetched.parent))
    assert all(path.exists() for path in mine)


def test_an_unfinished_training_stays_while_its_chunk_is_open_and_some_days_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = make_job()
    with transaction() as session:
        chunk_id = session.scalars(select(Chunk.id).where(Chunk.job_id == job_id)).one()
    state = write(f"versions/.{chunk_id}.{TOKEN}/run/state.pt")
    monkeypatch.setattr(get_settings(), "retain_checkpoint_days", 1e-9)
    collect(safe_seconds=0)
    assert state.exists()
    with transaction() as session:
        control.cancel_job(session, job_id)
    for days, there in ((7.0, True), (0.0, True), (1e-9, False)):
        monkeypatch.setattr(get_settings(), "retain_checkpoint_days", days)
        collect(safe_seconds=0)
        assert state.exists() == there, days


def test_what_a_crash_between_rows_and_files_leaves_is_collected() -> None:
    job_id = ended_job()
    with transaction() as session:
        erase.job(session, job_id)
    assert len(paths()) == 4
    collect()
    assert paths() == named() == set()


def test_data_of_ended_jobs_goes_unless_a_version_is_live(client: TestClient) -> None:
    lone, live, parent, former, tried, young = (ended_job() for _ in range(6))
    end_long_ago(young, days=80)
    running, _ = middle_of_a_job()
    base = add_version("m", 0, job=parent)
    add_version("m", 1, job=lone)
    add_version("m", 2, parent=base.id, job=live)
    add_version("m", 3, job=former)
    canary = add_version("m", 4, job=tried)
    with transaction() as session:
        aliases.move(session, "m", "latest", 3, "first")
        alias = aliases.move(session, "m", "latest", 2, "second")
        canaries.start(session, alias, canary, "shadow", 1.0, "try")
    before = paths()
    dry = collect(dry_run=True)
    assert paths() == before and dry.removed["job data"][0] == 2
    report = collect()
    assert report.removed["job data"] == dry.removed["job data"]
    assert report.removed["events"] == dry.removed["events"] == (5, 0)
    assert {one.split("/")[1] for one in before - paths()} == {lone}
    assert paths() == named() and paths("versions")
    assert_problem(client.get(f"/v1/jobs/{lone}/data/0/pair"), 410, "data_removed")
    assert client.get(f"/v1/jobs/{lone}").json()["data_removed_at"]
    assert client.get(f"/v1/jobs/{live}/data/0/pair").status_code == 200
    assert client.get(f"/v1/jobs/{lone}/data").json()["data"] == []
    drain(running, READERS)
    with transaction() as session:
        canaries.end(session, "m", "latest", "no")
    assert collect().removed["job data"][0] == 2
    assert not any(tried in one for one in paths())


def test_what_a_running_job_reads_of_another_stays() -> None:
    job_id, reader = ended_job(), make_job()
    with transaction() as session:
        path = session.scalars(select(Artifact.path).where(Artifact.kind == "pair")).first()
        session.execute(
            text(
                "UPDATE chunks SET input = jsonb_build_object('p', CAST(:p AS text))"
                " WHERE job_id = :j"
            ),
            {"p": path, "j": reader},
        )  # fmt: skip
    assert collect().removed["job data"][0] == 0
    assert any(job_id in one for one in paths())
    with transaction() as session:
        control.cancel_job(session, reader)
    assert collect().removed["job data"][0] == 2


def test_nought_days_keep_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("job", "batch", "events", "canary", "review"):
        monkeypatch.setattr(get_settings(), f"retain_{name}_days", 0.0)
    ended_job()
    ended_job("batch")
    before = paths()
    assert collect(safe_seconds=0).bytes == 0
    assert paths() == before == named()


def test_batches_canary_verdicts_and_texts_of_reviews_have_days_of_their_own(
    client: TestClient,
) -> None:
    batch, review, young = ended_job("batch"), ended_job("review"), ended_job("review")
    end_long_ago(batch, days=40)
    end_long_ago(young, days=40)
    base, other = add_version("m", 0), add_version("m", 1)
    with transaction() as session:
        alias = aliases.move(session, "m", "latest", 0, "first")
        canary = canaries.start(session, alias, other, "shadow", 1.0, "try")
        session.add(
            CanaryVerdict(
                canary_id=canary.id, content_sha256="s", arm="canary", verdict="A", judgments=1,
                parse_failures=0,
            )
        )  # fmt: skip
        for at, job_id in enumerate((review, young)):
            item = ReviewItem(
                id=f"item{at}", job_id=job_id, version_id=base.id, position=0, overlap=2,
                stratum="random", weight=1.0, pair="p", context=[], instruction="which?",
                response_a="a", response_b="b", swapped=False, verdict="A", confidence=1.0,
                orders_agree=True,
            )  # fmt: skip
            session.add(item)
            session.flush()
            session.add(
                Review(
                    item_id=item.id, reviewer="ada", verdict="A", comment="clear",
                    held_until=pipeline.NOW, answered_at=pipeline.NOW,
                )
            )  # fmt: skip
    summary = client.get("/v1/models/m/versions/0/reviews/summary").json()
    dry = collect(dry_run=True)
    report = collect()
    assert dry.removed == report.removed
    assert report.removed["batches"][0] == 2 and report.removed["canary verdicts"][0] == 0
    assert report.removed["review texts"][0] == 1
    with transaction() as session:
        old, new = (session.get_one(ReviewItem, f"item{at}") for at in (0, 1))
        assert (old.instruction, old.response_a, new.instruction) == ("", "", "which?")
        assert session.get_one(Review, ("item0", "ada")).comment is None
        assert session.get_one(Review, ("item1", "ada")).comment == "clear"
        session.execute(
            text("UPDATE canaries SET ended_at = now() - interval '91 day', ended_reason = 'x'")
        )
    assert client.get("/v1/models/m/versions/0/reviews/summary").json() == summary
    left = client.get("/v1/reviews/next?version=m:0&reviewer=bob").json()
    assert (left["item"]["id"], left["left"]) == ("item1", 1)
    assert collect().removed["canary verdicts"][0] == 1
    assert_problem(client.get(f"/v1/judge/batches/{batch}/results"), 410, "data_removed")


def test_one_collects_at_a_time_and_none_during_a_backup() -> None:
    left = write("artifacts/datasets/ds_1.jsonl")
    for key in (COLLECTING, REMOVING):
        with session_lock(key), pytest.raises(Held):
            collect(safe_seconds=0)
        assert left.exists()
    collect(safe_seconds=0)
    assert not left.exists()


def test_a_bucket_is_collected_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3 = S3()
    try:
        for name, value in s3.env.items():
            monkeypatch.setenv(name, value)
        bucket = s3.new_bucket()
        monkeypatch.setenv("SELFTAUGHT_ARTIFACTS_URL", f"s3://{bucket}/one")
        point_at(monkeypatch, get_settings().database_url, tmp_path)
        old, version = ended_job(), add_version("m", 0)
        share((get_settings().versions_dir / version.path).resolve())
        make_dataset(3)
        kept = s3.keys(bucket)
        share(write("versions/ver_gone/model.safetensors").parent.resolve())
        share(write("artifacts/datasets/ds_gone.jsonl").resolve())
        share(write(f"artifacts/jobs/{old}/0/pair/st_gone.0.{TOKEN}.jsonl").resolve())
        more = s3.keys(bucket)
        collect(dry_run=True, safe_seconds=0)
        assert s3.keys(bucket) == more > kept
        monkeypatch.setattr(get_settings(), "retain_job_days", 0)
        collect(safe_seconds=-60)  # the bucket's clock tells whole seconds
        assert s3.keys(bucket) == kept
        monkeypatch.setattr(get_settings(), "retain_job_days", 90)
        collect()
        assert s3.keys(bucket) == {key for key in kept if old not in key} < kept
    finally:
        s3.stop()


# ---------------------------------------------------------------- any history

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["train", "seed", "move", "back", "canary", "end canary", "upload", "kill", "delete",
             "start", "collect"]
        ),
        st.integers(0, 5),
    ),
    min_size=8,
    max_size=25,
)  # fmt: skip


@settings(
    max_examples=10,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
def test_after_any_history_what_is_reachable_is_there(steps: list[tuple[str, int]]) -> None:
    empty()
    for path in get_settings().home.rglob("*"):
        if path.is_file():
            path.unlink()
    versions: list[ModelVersion] = []
    numbers = count()
    removed: set[str] = set()
    for step, number in [*steps, ("collect", 0)]:
        one = versions[number % len(versions)] if versions else None
        if step == "seed" or (step == "train" and one is None):
            versions.append(add_version("m", next(numbers), job=ended_job()))
        elif step == "train" and one is not None:
            versions.append(add_version("m", next(numbers), one.id, ended_job()))
        elif step == "upload":
            make_dataset(2)
        elif step == "start":
            make_job()
        elif step == "kill":
            write(f"artifacts/jobs/job_{number}/0/judge/st_x.{number}.{TOKEN}.jsonl")
            write(f"versions/ver_{number}/model.safetensors")
        elif step == "collect":
            collect(safe_seconds=0)
            removed = checked(removed)
        elif one is not None:
            change(step, one)
            with transaction() as session:
                left = set(session.scalars(select(ModelVersion.id)))
            versions = [version for version in versions if version.id in left]


def change(step: str, one: ModelVersion) -> None:
    """What a user asks for; a refusal is an answer, too."""
    gone: list[Path] = []
    try:
        with transaction() as session:
            if step == "move":
                aliases.move(session, "m", "latest", one, "r")
            elif step == "back":
                aliases.rollback(session, "m", "latest")
            elif step == "end canary":
                canaries.end(session, "m", "latest", "r")
            elif step == "canary" and (alias := aliases.lock(session, "m", "latest")):
                canaries.start(session, alias, one, "shadow", 1.0, "r")
            elif step == "delete":
                gone = erase.version(session, "m", one.number)
    except (aliases.AliasError, canaries.CanaryIsIncumbent, erase.InUse):
        return
    erase.remove(gone)


def checked(before: set[str]) -> set[str]:
    """Rows and files agree, and nothing is gone that somebody may ask for.

    Takes and returns the jobs without data: who names a version later does not bring it back.
    """
    assert paths() == named()
    with transaction() as session:
        rows = {row.id: row for row in session.scalars(select(ModelVersion))}
        asked = set(session.scalars(text("SELECT version_id FROM alias_history")))
        asked |= set(
            session.scalars(text("SELECT version_id FROM canaries WHERE ended_at IS NULL"))
        )
        running = set(session.scalars(text("SELECT id FROM jobs WHERE state = 'running'")))
        removed = set(session.scalars(select(Job.id).where(Job.data_removed_at.is_not(None))))
    assert {name.split("/")[0] for name in paths("versions")} == {row.path for row in rows.values()}
    reachable = set()
    while asked:
        one = rows[asked.pop()]
        reachable.add(one.job_id)
        if one.parent_id is not None:
            asked.add(one.parent_id)
    assert not (removed - before) & (reachable | running)
    return removed
