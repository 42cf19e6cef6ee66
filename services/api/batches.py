"""Batches: many pairs to judge, as JSONL in and out; a job of their own.

The uploaded lines are kept, normalised, in one file, and a chunk of the job judges a range of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Annotated, Any, BinaryIO

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from selftaught import aliases, artifacts
from selftaught.contracts import (
    TERMINAL,
    BatchLine,
    BatchOptions,
    BatchOut,
    BatchResult,
    BatchSettings,
    Page,
    State,
)
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Job, ModelVersion, Stage
from selftaught.http import Refused, field_errors, problem_docs
from selftaught.ids import new_id
from selftaught.judging import JudgeTemplate
from selftaught.keeping import holds
from selftaught.registry import UnknownName, judge_template
from selftaught.settings import get_settings
from selftaught.work import control, pipeline, planning
from services.api import bodies, problems, records, views
from services.api.deps import Cursor, Limit
from services.api.idempotency import Once, keep
from services.api.judge import Named
from services.api.limits import Work, take_room

router = APIRouter(prefix="/v1/judge/batches", tags=["judge"])

LEAST_LINES = 16
"""Of a chunk, however many votes a line gets."""
FILES_AT_ONCE = 256
"""Result files looked up in one query."""
_PIECE = 1 << 20
_JSONL = "application/x-ndjson"
_TYPES = frozenset({_JSONL, "application/ndjson", "application/jsonl", "application/x-jsonlines"})
_INVALID = "invalid_batch"
_EXAMPLE = "\n".join(
    (
        '{"custom_id": "q1", "instruction": "Name a prime between 20 and 30.", '
        '"response_a": "23", "response_b": "27"}',
        '{"messages": [{"role": "user", "content": "Reverse these letters: a b"}], '
        '"response_a": "a b", "response_b": "b a", "reference": "b a"}',
    )
)
_BODY = {
    "required": True,
    "content": {
        _JSONL: {
            "schema": {"type": "string", "description": "A `BatchLine` in each line."},
            "example": _EXAMPLE,
        }
    },
}
BatchId = Annotated[
    str, Path(description="A batch's id.", examples=["batch_019ac5aa3c69e4b13e405697"])
]


class JsonLines(StreamingResponse):
    media_type = _JSONL


@router.post(
    "",
    status_code=201,
    responses=problem_docs(404, 409, 413, 415, 507),
    dependencies=[Once, Work],
    openapi_extra={"requestBody": _BODY},
)
async def create_batch(
    request: Request,
    response: Response,
    options: Annotated[BatchOptions, Query()],
    selftaught_model: Named = None,
) -> BatchOut:
    """Judge many pairs: a JSON object for each in the body, one a line, gzipped or not.

    A line has `instruction` or `messages`, `response_a`, `response_b`, and maybe `reference`,
    `rubric` and `custom_id`; how all of them are judged is said in the query. The version is looked
    up once, now, and judges every line. Every bad line is reported, and then nothing is kept or
    queued.
    """
    version, template = await run_in_threadpool(_choose, options, selftaught_model)
    media = parse_options_header(request.headers.get("content-type"))[0].decode("latin-1")
    if media not in _TYPES:
        detail = f"cannot read {media or 'a body without Content-Type'}; send {_JSONL}"
        raise Refused(415, "unsupported_format", detail)
    with bodies.spooled() as spool:
        await bodies.receive(request, spool)
        spool.seek(0)
        out = await run_in_threadpool(_create, spool, options, version, template)
    response.headers["Location"] = f"/v1/judge/batches/{out.id}"
    return out


@router.get("", responses=problem_docs())
def list_batches(after: Cursor = None, limit: Limit = 20) -> Page[BatchOut]:
    """Batches, newest first."""
    query = select(Job).where(Job.kind == "batch").order_by(Job.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Job.id < after)
    with transaction() as session:
        rows = session.scalars(query).all()
        return Page(data=views.batches(session, rows[:limit]), has_more=len(rows) > limit)


@router.get("/{batch_id}", responses=problem_docs(404))
def get_batch(batch_id: BatchId) -> BatchOut:
    """One batch: its state, and what was judged so far."""
    with transaction() as session:
        return views.batches(session, [_find(session, batch_id)])[0]


@router.post("/{batch_id}/cancel", status_code=202, responses=problem_docs(404, 409))
def cancel_batch(batch_id: BatchId) -> BatchOut:
    """Ask a batch to stop; results that it has stay. Asking again changes nothing."""
    with transaction() as session:
        job = _find(session, batch_id)
        try:
            control.cancel_job(session, batch_id)
        except control.JobRefuses as refusal:
            (out,) = views.batches(session, [job])
            detail = f"batch {batch_id!r} has already {out.state}"
            raise Refused(409, "batch_finished", detail) from refusal
        session.flush()
        session.refresh(job)
        return views.batches(session, [job])[0]


@router.get(
    "/{batch_id}/results",
    response_class=JsonLines,
    responses=problem_docs(404, 410)
    | {200: {"model": BatchResult, "description": "A `BatchResult` in each line."}},
)
def get_results(
    batch_id: BatchId,
    after: Annotated[
        int, Query(ge=0, le=2**63 - 1, description="Only results of lines behind this one.")
    ] = 0,
) -> JsonLines:
    """Results as JSONL, in the order of the uploaded lines; partial ones while the batch runs.

    Of a running batch: those before the first line that is still open, so that who goes on after
    the last line he got misses nothing. Of a batch that has ended, however: all there are.
    """
    with transaction() as session:
        job = _find(session, batch_id)
        problems.need_data(job)
        place = _place(session, job, after)
    pieces = _pieces(place, after)
    # Whatever is wrong with the first file is told as a problem.
    return JsonLines(chain([next(pieces, b"")], pieces))


def _choose(options: BatchOptions, named: str | None) -> tuple[ModelVersion, JudgeTemplate]:
    """Who judges, and with which template."""
    with transaction() as session:
        version = aliases.resolve(session, options.model if options.model is not None else named)
    try:
        return version, judge_template(options.template or version.lineage["template"]["name"])
    except UnknownName as error:
        raise problems.unknown_name(error, "template") from error


def _create(
    spool: BinaryIO, options: BatchOptions, version: ModelVersion, template: JudgeTemplate
) -> BatchOut:
    """Check and normalise the lines, publish them, then write the job's rows; all or nothing."""
    batch_id = new_id("batch")
    path = f"batches/{batch_id}.jsonl"
    with bodies.unpacked(spool, _INVALID) as lines, artifacts.Writer("batch", path) as writer:
        slices = _Slices(writer, path, max(LEAST_LINES, planning.BATCH_CHUNK // options.votes))
        bodies.write_rows(_rows(lines), slices.write_all, _INVALID)
        published = writer.publish()
    settings = BatchSettings(
        version=version.id,
        ref=version.ref,
        template=template.name,
        template_sha256=template.sha256,
        votes=options.votes,
        both_orders=options.both_orders,
        allow_tie=options.allow_tie,
        explain=options.explain,
        lines=published.rows,
    )
    with bodies.recording(published) as session:
        if holds.version(session, version.id) is None:  # deleted meanwhile
            raise problems.not_found("version", version.ref, "model")
        take_room(session, published.bytes)
        session.add(Artifact(id=new_id("art"), **asdict(published)))
        job = Job(
            id=batch_id,
            kind="batch",
            state=State.PENDING,
            model=version.model,
            recipe=settings.model_dump(mode="json"),
        )
        session.add(job)
        pipeline.start_job(session, job, slices.inputs)
        session.flush()
        session.refresh(job)
        (out,) = views.batches(session, [job])
        keep(session, out, f"/v1/judge/batches/{out.id}")
    return out


def _rows(lines: BinaryIO) -> records.Items:
    """Every line as it is kept, {custom_id, line, ..}, or what is wrong with it."""
    settings = get_settings()
    found = records.records(
        lines, "jsonl", "instructions", None, settings.max_row_bytes, settings.max_upload_bytes
    )
    with records.Seen() as seen:
        for number, record in found:
            if isinstance(record, records.LineError):
                yield record
            else:
                yield from _row(number, record, seen)


def _row(
    number: int, fields: records.Fields, seen: records.Seen
) -> Iterator[records.Row | records.LineError]:
    given = fields.get("custom_id")
    name = given if isinstance(given, str) else str(number)
    first = seen.claim(name, number)
    if first != number:
        message = f"{name!r} is already the custom_id of line {first}"
        yield records.LineError(number, "custom_id", message)
    try:
        line = BatchLine.model_validate(fields)
    except ValidationError as error:
        for one in field_errors(error.errors(include_url=False, include_context=False)):
            yield records.LineError(number, one["field"] or None, one["message"])
        return
    if first == number:
        kept = line.model_dump(exclude_none=True) | {"custom_id": name, "line": number}
        yield records.Row(number, kept)


class _Slices:
    """Writes rows, and notes which of them each chunk is to judge (`inputs`).

    `offset`: bytes before its first row; `limit`: its rows; `last`: number of its last line.
    """

    def __init__(self, writer: artifacts.Writer, path: str, size: int) -> None:
        self._writer, self._path, self._size = writer, path, size
        self.inputs: planning.Inputs = []

    def write_all(self, rows: list[dict[str, Any]]) -> None:
        """Append rows."""
        for row in rows:
            if self._writer.rows % self._size == 0:
                self.inputs.append({"lines": self._path, "offset": self._writer.bytes, "limit": 0})
            self._writer.write(row)
            self.inputs[-1]["limit"] += 1
            self.inputs[-1]["last"] = row["line"]


@dataclass(frozen=True)
class _Place:
    """Chunks whose results are wanted, by position: from `first` on, and before `end`."""

    stage_id: str
    first: int
    end: int


def _place(session: Session, job: Job, after: int) -> _Place:
    """Where the results behind this line begin, and how far they go by now."""
    stage = session.scalars(select(Stage).where(Stage.job_id == job.id)).one()
    wanted = select(func.min(Chunk.position)).where(Chunk.stage_id == stage.id)
    behind = cast(Chunk.input["last"].astext, BigInteger) > after
    first = session.scalar(wanted.where(behind))
    end = None
    if job.state not in TERMINAL:
        end = session.scalar(wanted.where(Chunk.state != State.SUCCEEDED))
    return _Place(
        stage_id=stage.id,
        first=stage.chunks if first is None else first,
        end=stage.chunks if end is None else end,
    )


def _pieces(place: _Place, after: int) -> Iterator[bytes]:
    """The files' content; of the first one, only lines behind `after`."""
    position = place.first - 1
    whole = after == 0
    while files := _files(place, position):
        position = files[-1][0]
        for _, path in files:
            with artifacts.resolve(path).open("rb") as file:
                if not whole:
                    yield b"".join(line for line in file if orjson.loads(line)["line"] > after)
                    whole = True
                while piece := file.read(_PIECE):
                    yield piece


def _files(place: _Place, position: int) -> list[tuple[int, str]]:
    """Position and path of the next result files behind this position."""
    query = (
        select(Chunk.position, Artifact.path)
        .join(Artifact, Artifact.id == Chunk.artifact_id)
        .where(Chunk.stage_id == place.stage_id)
        .where(Chunk.position > position, Chunk.position < place.end)
        .order_by(Chunk.position)
        .limit(FILES_AT_ONCE)
    )
    with transaction() as session:
        return [(found, path) for found, path in session.execute(query)]


def _find(session: Session, batch_id: str) -> Job:
    job = session.get(Job, batch_id)
    if job is None or job.kind != "batch":
        raise problems.not_found("batch", batch_id)
    return job
