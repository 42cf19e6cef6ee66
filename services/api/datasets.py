"""Datasets: uploads streamed to disk, checked line by line, published whole or not at all."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict
from pathlib import PurePath
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ConfigDict, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool

from selftaught import artifacts, jsonl
from selftaught.benchmarks.base import BadRow
from selftaught.benchmarks.catalogue import BENCHMARKS, load
from selftaught.contracts import Contract, DatasetKind, DatasetOut, DatasetRow, Page
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Dataset
from selftaught.http import Refused, field_errors, problem_docs, too_large
from selftaught.ids import new_id
from selftaught.keeping import erase
from selftaught.settings import get_settings
from services.api import bodies, problems, records, uploads, views
from services.api.deps import Cursor, Limit, bad_text
from services.api.idempotency import Once, keep
from services.api.limits import Work, take_room
from services.api.multipart import BadMultipart, FormReader

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

INVALID = "invalid_dataset"
_PAGE_BYTES = 4 << 20
_FORM_OVERHEAD = 64 * 1024
_TYPES: dict[str, records.Format] = {
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/x-jsonlines": "jsonl",
    "text/csv": "csv",
    "text/plain": "lines",
    "application/vnd.apache.parquet": "parquet",
}
_SUFFIXES: dict[str, records.Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".txt": "lines",
    ".parquet": "parquet",
}


class UploadFields(Contract):
    """What goes with an upload, in the query or in the form."""

    model_config = ConfigDict(strict=False)

    name: str | None = Field(
        None, min_length=1, max_length=200, description="Default: the file's, else its id."
    )
    kind: DatasetKind = Field("instructions", description="What the rows are.")
    column: str | None = Field(
        None, min_length=1, max_length=200, description="The field that holds the instruction."
    )
    benchmark: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description=f"Of kind 'benchmark', if its fields do not tell: {', '.join(BENCHMARKS)}.",
    )


_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "The file, gzipped or not."},
        **UploadFields.model_json_schema()["properties"],
    },
}
_ROWS = '{"instruction": "Reverse these letters: k f a b"}\n'
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": _FORM,
            "example": {"file": _ROWS, "name": "prompts", "kind": "instructions"},
            "encoding": {"file": {"contentType": ", ".join(_TYPES)}},  # or a suffix that tells
        },
        **{
            media: {"schema": {"type": "string"}, "example": rows}
            for media, rows in {
                "application/x-ndjson": _ROWS,
                "text/csv": "instruction\nReverse these letters: k f a b\n",
                "text/plain": "Reverse these letters: k f a b\n",
            }.items()
        },
        "application/vnd.apache.parquet": {
            "schema": {"type": "string", "format": "binary"},
            "example": "PAR1..",
        },
    },
}
DatasetId = Annotated[
    str, Path(description="A dataset's id.", examples=["ds_019ac5a0b2c07e1f4a6b8c9d"])
]


@router.post(
    "",
    status_code=201,
    responses=problem_docs(409, 413, 415, 507),
    dependencies=[Once, Work],
    openapi_extra={"requestBody": _BODY},
)
async def upload_dataset(
    request: Request,
    response: Response,
    fields: Annotated[UploadFields, Query()],
) -> DatasetOut:
    """Upload instructions, labelled pairs to check with, or pairs for people to review.

    As a form (`file`, with `name`, `kind`, `column` beside it) or as the raw body, gzipped or not.
    JSONL, CSV and Parquet have a field `instruction` or `prompt`, or the one that `column` names,
    or a conversation (`messages`, or WildChat's `conversation`); plain text has one instruction a
    line. `kind=labelled` rows also have `chosen` and `rejected`, maybe `subset`; `kind=pairs` rows
    have `response_a` and `response_b`, and their conversation ends with the user's message.
    `kind=benchmark` is a file as its authors publish it (a JSON array, JSONL, Parquet), recognised
    by its fields unless `benchmark` names it.
    Every bad line is reported, and then nothing is kept.
    """
    with bodies.spooled() as spool:
        form, fields = await _receive(request, spool, fields)
        spool.seek(0)
        out = await run_in_threadpool(_ingest, spool, form, fields)
    response.headers["Location"] = f"/v1/datasets/{out.id}"
    return out


@router.get("", responses=problem_docs())
def list_datasets(after: Cursor = None, limit: Limit = 20) -> Page[DatasetOut]:
    """Datasets, newest first."""
    with transaction() as session:
        rows = views.datasets(session, after, limit + 1)
    return Page(data=rows[:limit], has_more=len(rows) > limit)


@router.get("/{dataset_id}", responses=problem_docs(404))
def get_dataset(dataset_id: DatasetId) -> DatasetOut:
    """One dataset: what it is, how many rows it has, and their hash."""
    with transaction() as session:
        row = session.get(Dataset, dataset_id)
        if row is None or row.artifact_id is None:
            raise problems.not_found("dataset", dataset_id)
        return views.dataset(row, session.get_one(Artifact, row.artifact_id))


@router.get("/{dataset_id}/rows", responses=problem_docs(404))
def list_rows(
    dataset_id: DatasetId,
    after: Annotated[
        int | None,
        Query(ge=0, le=2**63 - 1, description="`at` of the last row before the page."),
    ] = None,
    limit: Limit = 20,
) -> Page[DatasetRow]:
    """Rows of a dataset, in the file's order.

    A page has `limit` rows, or fewer where they are long; how far it is down the file makes no
    difference to what it costs.
    """
    with transaction() as session:
        row = session.get(Dataset, dataset_id)
        if row is None or row.artifact_id is None:
            raise problems.not_found("dataset", dataset_id)
        path = session.get_one(Artifact, row.artifact_id).path
    try:
        found, has_more = jsonl.read_page(artifacts.resolve(path), after, limit, _PAGE_BYTES)
    except ValueError as error:
        raise Refused(422, "invalid_request", str(error), param="after") from error
    except FileNotFoundError as error:  # deleted meanwhile
        raise problems.not_found("dataset", dataset_id) from error
    return Page(data=[DatasetRow(at=at, row=one) for at, one in found], has_more=has_more)


@router.delete("/{dataset_id}", status_code=204, responses=problem_docs(404, 409))
def delete_dataset(dataset_id: DatasetId) -> None:
    """Delete a dataset's data; 409 `dataset_in_use` while a running job needs it.

    Jobs and versions that were made from it keep its id and its hash. What jobs made of it stays
    with them (`DELETE /v1/jobs/{job_id}`).
    """
    try:
        with transaction() as session:
            gone = erase.dataset(session, dataset_id)
    except KeyError as error:
        raise problems.not_found("dataset", dataset_id) from error
    except erase.InUse as error:
        raise Refused(409, "dataset_in_use", str(error)) from error
    erase.remove(gone)


async def _receive(
    request: Request, spool: BinaryIO, fields: UploadFields
) -> tuple[records.Format, UploadFields]:
    """Stream the body into `spool`, counting; say what format it is and what came with it."""
    media, options = parse_options_header(request.headers.get("content-type"))
    if media == b"multipart/form-data":
        return await _receive_form(request, spool, fields, options.get(b"boundary", b""))
    form = _TYPES.get(media.decode("latin-1"))
    if fields.kind == "benchmark":
        form = "jsonl"  # or a JSON array, or gzip: its reader looks for itself
    if form is None:
        raise _unsupported(media.decode("latin-1") or "a body without Content-Type")
    await bodies.receive(request, spool)
    return form, fields


async def _receive_form(
    request: Request, spool: BinaryIO, fields: UploadFields, boundary: bytes
) -> tuple[records.Format, UploadFields]:
    limit = get_settings().max_upload_bytes
    try:
        if not boundary:
            raise BadMultipart("the Content-Type has no boundary")
        reader = FormReader(boundary, spool, frozenset(UploadFields.model_fields))
        async for batch in bodies.pieces(request, limit + _FORM_OVERHEAD):
            await run_in_threadpool(reader.feed, batch)
            if reader.received > limit:
                raise too_large(limit)
        reader.finish()
    except BadMultipart as error:
        raise Refused(422, "invalid_form", str(error)) from error
    given = fields.model_dump(exclude_unset=True) | reader.fields
    try:
        merged = UploadFields.model_validate(given)
    except ValidationError as error:
        errors = field_errors(error.errors())
        detail = f"{errors[0]['field']}: {errors[0]['message']}"
        raise Refused(
            422, "invalid_request", detail, param=errors[0]["field"], errors=errors
        ) from error
    if merged.name is None and reader.filename:
        merged.name = _name_of(reader.filename)
    media = parse_options_header(reader.content_type)[0].decode("latin-1")
    suffix = PurePath((reader.filename or "").lower().removesuffix(".gz")).suffix
    form = _SUFFIXES.get(suffix) or _TYPES.get(media)
    if merged.kind == "benchmark":
        form = "jsonl"
    if form is None:
        known = " ".join(_SUFFIXES)
        detail = (
            f"{_name_of(reader.filename or '') or 'the file'}: not {known}, with or without .gz"
        )
        raise Refused(415, "unsupported_format", detail, param="file")
    return form, merged


def _name_of(filename: str) -> str | None:
    """A dataset's name from its file's: the last part of a path, only what can be seen of it.

    Characters without a shape of their own (controls, marks that turn the direction of writing)
    are left out; what is stored under is the dataset's id, never this.
    """
    last = PurePath(filename.replace("\\", "/")).name
    seen = "".join(one for one in last if not unicodedata.category(one).startswith("C"))
    return seen.strip()[:200] or None


def _unsupported(what: str) -> Refused:
    detail = (
        f"cannot read {what}; send one of {', '.join(_TYPES)} or a form with {' '.join(_SUFFIXES)}"
    )
    return Refused(415, "unsupported_format", detail)


def _ingest(spool: BinaryIO, form: records.Format, fields: UploadFields) -> DatasetOut:
    """Check and normalise the file, publish it, then write its rows; all or nothing."""
    dataset_id = new_id("ds")
    name = fields.name or dataset_id
    if problem := bad_text(name):
        raise Refused(422, "invalid_request", f"name contains {problem}", param="name")
    path = f"datasets/{dataset_id}.jsonl"
    benchmark = None
    with bodies.unpacked(spool, INVALID) as spool, artifacts.Writer("dataset", path) as writer:
        if fields.kind == "benchmark":
            benchmark = _copy_examples(spool, fields.benchmark, writer)
        else:
            settings = get_settings()
            limits = (settings.max_row_bytes, settings.max_upload_bytes)
            rows = uploads.parse(spool, form, fields.kind, fields.column, *limits)
            bodies.write_rows(rows, writer.write_all, INVALID)
        published = writer.publish()
    with bodies.recording(published) as session:
        take_room(session, published.bytes)
        artifact = Artifact(id=new_id("art"), **asdict(published))
        session.add(artifact)
        session.flush()
        row = Dataset(
            id=dataset_id,
            name=name,
            kind=fields.kind,
            benchmark=benchmark,
            artifact_id=artifact.id,
        )
        session.add(row)
        session.flush()
        session.refresh(row)
        out = views.dataset(row, artifact)
        keep(session, out, f"/v1/datasets/{out.id}")
    return out


def _copy_examples(spool: BinaryIO, name: str | None, writer: artifacts.Writer) -> str:
    """Write a benchmark's examples; returns its name."""
    if name is not None and name not in BENCHMARKS:
        detail = f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}"
        raise Refused(422, "unknown_benchmark", detail, param="benchmark")
    try:
        benchmark, examples = load(spool, name)
    except BadRow as error:
        listed = [{"line": error.row, "field": error.field, "message": error.message}]
        raise Refused(
            422, INVALID, f"{error}; nothing was kept", param=error.field, errors=listed
        ) from error
    for example in examples:
        writer.write(example.to_row())
    return benchmark.name
