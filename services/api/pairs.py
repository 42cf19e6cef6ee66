"""The pairs of an iteration with their judgments, to look at: what was kept, and why the rest not.

The file `fates` of curation is sorted by the pair's id and says where the texts stand
(services/generator/fates.py). So a page costs a search in it, a stretch of it, and one read for
each pair on the page, however large the iteration was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import jsonl
from selftaught.artifacts import resolve
from selftaught.contracts import (
    JudgedOrder,
    JudgmentOut,
    OrderSummary,
    Outcome,
    PairListed,
    PairOut,
    PairsPage,
    State,
)
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Job, Stage
from selftaught.http import Refused, problem_docs
from selftaught.judging import Verdict, tally
from services.api import data, jobs, problems
from services.api.data import Number
from services.api.deps import JobId, Limit

router = APIRouter(prefix="/v1/jobs/{job_id}/iterations/{iteration}/pairs", tags=["data"])

MOST_LOOKED_AT = 20_000
"""Rows of the file `fates` that a page reads to find pairs with an outcome."""
SHOWN = 300
"""Characters of an instruction in a list."""
LONGEST_ID = 1000

_DOCS = problem_docs(404, 409, 410)


@dataclass(frozen=True)
class Files:
    """Where an iteration's pairs and judgments lie; by chunk, as the positions count them."""

    fates: str
    pairs: list[str]
    judgments: list[str]
    construction: str
    judge: str | None


@router.get("", responses=_DOCS)
def list_pairs(
    job_id: JobId,
    iteration: Number,
    after: Annotated[
        str | None,
        Query(max_length=LONGEST_ID, description="`next` of the page before, or a pair's id."),
    ] = None,
    limit: Limit = 20,
    outcome: Annotated[
        Outcome | None, Query(description="Only pairs with this one among their `outcomes`.")
    ] = None,
    begins: Annotated[
        str, Query(max_length=LONGEST_ID, description="Only ids that begin like this.")
    ] = "",
) -> PairsPage:
    """The pairs of an iteration, by id, each with what became of its judgments."""
    files = _find(job_id, iteration)
    fates = resolve(files.fates)
    start = jsonl.first_from(fates, max(begins, after or ""))
    found: list[jsonl.Row] = []
    last, has_more, looked_at = None, False, 0
    for _, row in jsonl.read_with_offsets(fates, start):
        if row["id"] == after:
            continue
        if not row["id"].startswith(begins):
            break
        if len(found) == limit or looked_at == MOST_LOOKED_AT:
            has_more = True
            break
        last, looked_at = row["id"], looked_at + 1
        if outcome is None or outcome in row["outcomes"]:
            found.append(row)
    listed = [_listed(row, next(_rows_from(files.pairs, row["pair"]))) for row in found]
    return PairsPage(data=listed, has_more=has_more, next=last if has_more else None)


@router.get("/{pair_id:path}", responses=_DOCS)
def get_pair(
    job_id: JobId,
    iteration: Number,
    pair_id: Annotated[str, Path(description="As in the list.", examples=["row-17"])],
) -> PairOut:
    """One pair: both responses, and every judgment with what became of it."""
    files = _find(job_id, iteration)
    fates = resolve(files.fates)
    start = jsonl.first_from(fates, pair_id)
    row = next((row for _, row in jsonl.read_with_offsets(fates, start)), None)
    if row is None or row["id"] != pair_id:
        raise problems.not_found("pair", pair_id)
    pair = next(_rows_from(files.pairs, row["pair"]))
    return PairOut(
        job=job_id,
        iteration=iteration,
        id=pair_id,
        context=pair.get("context", []),
        instruction=pair["instruction"],
        modified_instruction=pair.get("modified_instruction"),
        chosen=pair["chosen"],
        rejected=pair["rejected"],
        construction=files.construction,
        judge=files.judge,
        outcomes=row["outcomes"],
        orders=[_judged(one, files.judgments) for one in row["orders"]],
    )


def _find(job_id: str, number: int) -> Files:
    """The files of an iteration that has curated; refuses others."""
    with transaction() as session:
        job = jobs.find(session, job_id)
        problems.need_data(job)
        row = data.find_iteration(session, job_id, number)
        query = select(Stage.state).where(Stage.iteration_id == row.id, Stage.kind == "curate")
        state = session.scalar(query)
        if state is not None and state != State.SUCCEEDED:
            detail = f"stage 'curate' of iteration {number} is {state}"
            raise Refused(409, "not_finished", detail)
        return _files(session, job, number)


def _files(session: Session, job: Job, number: int) -> Files:
    fates = _paths(session, job.id, number, "fates")
    if not fates:
        detail = f"iteration {number} of job {job.id!r} has no judged pairs to look at"
        raise Refused(404, "no_such_data", detail, param="iteration")
    recipe = job.recipe["pair"]
    judge = data.find_version(session, data.find_iteration(session, job.id, max(number - 1, 0)))
    return Files(
        fates=fates[0],
        pairs=_paths(session, job.id, number if recipe["fresh"] else 1, "pair"),
        judgments=_paths(session, job.id, number, "judge"),
        construction=recipe["construction"],
        judge=judge.ref if judge else None,
    )


def _paths(session: Session, job_id: str, number: int, name: str) -> list[str]:
    """The files of one name, by chunk."""
    here = Artifact.path.startswith(f"jobs/{job_id}/{number}/{name}/", autoescape=True)
    found = session.scalars(select(Artifact.path).where(here))
    return sorted(found, key=lambda path: int(path.rpartition("/")[2].split(".")[1]))


def _rows_from(paths: list[str], position: jsonl.Position) -> Iterator[jsonl.Row]:
    """Rows from a position on. Only this file is fetched, where another node wrote it."""
    file, offset = position
    return (row for _, row in jsonl.read_with_offsets(resolve(paths[file]), offset))


def _listed(row: jsonl.Row, pair: jsonl.Row) -> PairListed:
    return PairListed(
        id=row["id"],
        instruction=pair["instruction"][:SHOWN],
        outcomes=row["outcomes"],
        orders=[
            OrderSummary(
                order=one["order"], verdict=_majority(one), fates=dict(Counter(one["fates"]))
            )
            for one in row["orders"]
        ],
    )


def _judged(told: jsonl.Row, judgments: list[str]) -> JudgedOrder:
    rows = _rows_from(judgments, told["at"])
    places = _places(told["preferences"])
    return JudgedOrder(
        order=told["order"],
        label=told["order"][0],
        verdict=_majority(told),
        judgments=[
            JudgmentOut(
                sample=sample,
                verdict=row["verdict"],
                fate=fate,
                preferred=places.get(sample),
                text=row["text"],
                finish_reason=row["finish_reason"],
                completion_tokens=row["completion_tokens"],
            )
            for sample, (fate, row) in enumerate(zip(told["fates"], rows, strict=False))
        ],
    )


def _places(preferences: list[list[int]]) -> dict[int, Any]:
    """By sample; where a judgment is right in its input, it is so in all its pairs."""
    return {wrong: "rejected" for _, wrong in preferences} | {
        right: "chosen" for right, _ in preferences
    }


def _majority(told: jsonl.Row) -> Any:
    return tally([Verdict(one) for one in told["verdicts"]]).verdict.value
