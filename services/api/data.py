"""What a job made, to take away: rows of every stage as JSONL or Parquet, and a manifest.

Files are found by where their holders wrote them (`Lease.path`): jobs/<job>/<iteration>/<name>/. A
name is a stage's kind, `<kind>_dropped` for the rows it left out, `preferences` or `fates`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path as FilePath
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

import selftaught
from selftaught import jsonl, parquet
from selftaught.artifacts import resolve
from selftaught.contracts import DataFile, DataOut, ManifestOut, Page, State
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Dataset, Iteration, ModelVersion, Stage
from selftaught.http import Refused, problem_docs
from selftaught.registry import judge_template
from selftaught.settings import get_settings
from selftaught.work.pipeline import add_counts
from services.api import jobs, problems
from services.api.deps import JobId

router = APIRouter(prefix="/v1/jobs", tags=["data"])

_PIECE = 1 << 20
_TYPES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
_STAGES = {"preferences": "curate", "fates": "curate"}  # names that are no stage's kind

_DOCS: dict[int | str, dict[str, Any]] = problem_docs(404, 409, 410) | {
    200: {
        "description": "The rows.",
        "content": {
            _TYPES["jsonl"]: {
                "schema": {"type": "string"},
                "example": '{"id": "row-17", "prompt": [{"role": "user", "content": "Which .."}], '
                '"completion": [{"role": "assistant", "content": ".. [[A]]"}]}\n',
            },
            _TYPES["parquet"]: {
                "schema": {"type": "string", "format": "binary"},
                "example": "PAR1..",
            },
        },
    },
    304: {"description": "You have these rows already."},
}
Number = Annotated[int, Path(description="An iteration's number.", examples=[1])]
Place = tuple[int, str]
"""Iteration and name."""


@dataclass(frozen=True)
class File:
    """One chunk's file, and where it stands among those of its stage."""

    place: Place
    chunk: int
    artifact: Artifact


@router.get("/{job_id}/data", responses=problem_docs(404))
def list_data(job_id: JobId) -> Page[DataOut]:
    """Everything that a job's stages have published so far, by iteration and name."""
    with transaction() as session:
        jobs.find(session, job_id)
        return Page(data=_summaries(job_id, _files(session, job_id)), has_more=False)


@router.get("/{job_id}/data/{iteration}", responses=problem_docs(404, 409))
def get_manifest(job_id: JobId, iteration: Number) -> ManifestOut:
    """Where an iteration's data came from; never changes, so it is there only at its end."""
    with transaction() as session:
        job = jobs.find(session, job_id)
        row = find_iteration(session, job_id, iteration)
        if row.state != State.SUCCEEDED:
            detail = f"iteration {iteration} of job {job_id!r} is {row.state}"
            raise Refused(409, "not_finished", detail)
        before = max(iteration - 1, 0)
        judge = find_version(session, find_iteration(session, job_id, before))
        made = find_version(session, row)
        stages = session.scalars(select(Stage).where(Stage.iteration_id == row.id)).all()
        files = [file for file in _files(session, job_id) if file.place[0] == iteration]
        dataset = session.get(Dataset, job.dataset_id) if job.dataset_id else None
        data = session.get(Artifact, dataset.artifact_id) if dataset else None
        hashed = data.sha256 if data else dataset.sha256 if dataset else None
        out = ManifestOut(
            job=job_id,
            iteration=iteration,
            judge=judge.ref if judge else None,
            version=made.ref if made else None,
            dataset={"id": dataset.id, "sha256": hashed} if dataset else None,
            template=None,
            recipe=job.recipe,
            code_version=selftaught.__version__,
            counts=add_counts([stage.counts for stage in stages]),
            data=_summaries(job_id, files),
        )
    if job.kind == "loop":
        template = judge_template(job.recipe["judge"]["template"])
        out.template = {"name": template.name, "sha256": template.sha256}
    return out


@router.get("/{job_id}/data/{iteration}/{name}", response_class=Response, responses=_DOCS)
def download(
    job_id: JobId,
    iteration: Number,
    name: Annotated[str, Path(description="As in the list of data.", examples=["curate"])],
    form: Annotated[
        Literal["jsonl", "parquet"], Query(alias="format", description="How rows are written.")
    ] = "jsonl",
    if_none_match: Annotated[
        str | None, Header(description="The ETag of what you have: 304 if it is still the same.")
    ] = None,
) -> Response:
    """All rows of one name, in order. Its ETag is a hash of the rows."""
    with transaction() as session:
        problems.need_data(jobs.find(session, job_id))
        row = find_iteration(session, job_id, iteration)
        stage = session.scalar(
            select(Stage).where(Stage.iteration_id == row.id, Stage.kind == _stage(name))
        )
        files = [file for file in _files(session, job_id) if file.place == (iteration, name)]
        there = sorted({f.place[1] for f in _files(session, job_id) if f.place[0] == iteration})
    if stage is not None and stage.state != State.SUCCEEDED:
        detail = f"stage {stage.kind!r} of iteration {iteration} is {stage.state}"
        raise Refused(409, "not_finished", detail)
    if not files:
        detail = f"iteration {iteration} has no {name!r}; there are: {', '.join(there) or 'none'}"
        if name == "preferences":
            detail += "; the recipe's curate.preferences makes it, or train.objective 'sft_dpo'"
        raise Refused(404, "no_such_data", detail, param="name")
    tag = f'"{sha256("".join(f.artifact.sha256 for f in files).encode()).hexdigest()}.{form}"'
    if if_none_match == tag:
        return Response(status_code=304, headers={"ETag": tag})
    paths = [resolve(file.artifact.path) for file in files]
    content = _joined(paths) if form == "jsonl" else _pieces(_as_parquet(paths))
    disposition = f'attachment; filename="{job_id}-{iteration}-{name}.{form}"'
    headers = {"ETag": tag, "Content-Disposition": disposition}
    return StreamingResponse(content, media_type=_TYPES[form], headers=headers)


def _stage(name: str) -> str:
    return _STAGES.get(name, name.removesuffix("_dropped"))


def find_iteration(session: Session, job_id: str, number: int) -> Iteration:
    """An iteration of a job by its number; refuses others."""
    query = select(Iteration).where(Iteration.job_id == job_id, Iteration.number == number)
    row = session.scalars(query).one_or_none() if 0 <= number <= 1000 else None
    if row is None:
        raise problems.not_found("iteration", str(number))
    return row


def find_version(session: Session, row: Iteration) -> ModelVersion | None:
    """What an iteration made."""
    return None if row.version_id is None else session.get_one(ModelVersion, row.version_id)


def _files(session: Session, job_id: str) -> list[File]:
    """Every published file of a job, by iteration, name and chunk."""
    here = Artifact.path.startswith(f"jobs/{job_id}/", autoescape=True)
    found = []
    for artifact in session.scalars(select(Artifact).where(here)):
        _, _, iteration, name, file = artifact.path.split("/")
        chunk = int(file.split(".")[1])  # <stage>.<chunk>.<token>.jsonl
        found.append(File((int(iteration), name), chunk, artifact))
    return sorted(found, key=lambda one: (one.place, one.chunk))


def _summaries(job_id: str, files: Sequence[File]) -> list[DataOut]:
    groups: dict[Place, list[Artifact]] = {}
    for file in files:
        groups.setdefault(file.place, []).append(file.artifact)
    return [
        DataOut(
            iteration=iteration,
            name=name,
            kind=parts[0].kind,
            rows=sum(part.rows for part in parts),
            bytes=sum(part.bytes for part in parts),
            files=[DataFile(rows=p.rows, bytes=p.bytes, sha256=p.sha256) for p in parts],
            url=f"/v1/jobs/{job_id}/data/{iteration}/{name}",
        )
        for (iteration, name), parts in groups.items()
    ]


def _joined(paths: Sequence[FilePath]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            yield from _chunks(file)


def _as_parquet(paths: Sequence[FilePath]) -> BinaryIO:
    """A nameless file, at its start: gone when it is closed, whatever happens."""

    def rows() -> Iterator[dict[str, Any]]:
        for path in paths:
            yield from jsonl.read(path)

    out = tempfile.TemporaryFile(dir=get_settings().artifacts_dir)  # noqa: SIM115 (_pieces closes it)
    try:
        parquet.write(rows, out)
    except BaseException:
        out.close()
        raise
    out.seek(0)
    return out


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from _chunks(file)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece
