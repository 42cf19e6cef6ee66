"""Reviews: queues of judged pairs, given out to people blind, and what their answers come to."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import Function, Select, and_, case, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from selftaught import aliases, reviews
from selftaught.contracts import (
    JobOut,
    Page,
    ReviewAnswerIn,
    ReviewAnswerOut,
    ReviewDrift,
    ReviewedOut,
    Reviewer,
    ReviewItemOut,
    ReviewNextOut,
    ReviewQueueIn,
    ReviewSettings,
    ReviewSkipIn,
    ReviewSkippedOut,
    ReviewSummary,
    State,
    Stratum,
)
from selftaught.contracts.reviews import PersonVerdict
from selftaught.database import transaction
from selftaught.database.tables import Job, ModelVersion, Review, ReviewItem
from selftaught.http import Refused, problem_docs
from selftaught.ids import new_id
from selftaught.judging import Verdict, swap
from selftaught.keeping import holds
from selftaught.work import pipeline
from selftaught.work.sources import HELDOUT, PAIRED, TRAFFIC, find_source
from services.api import problems, views
from services.api.deps import Cursor, Limit, Name, Number, StorableBody
from services.api.idempotency import Once, keep
from services.api.limits import Work

router = APIRouter(tags=["reviews"])

HELD = dt.timedelta(minutes=30)
"""How long an item that was shown waits for its reviewer before another one gets the place."""

Item = Annotated[
    str,
    Path(
        max_length=64,
        description="An item's id, as `next` gave it.",
        examples=["item_019ac5a92b58d3a02d3f4586"],
    ),
]


@router.post(
    "/v1/models/{name}/versions/{number}/reviews",
    status_code=202,
    responses=problem_docs(404, 409),
    dependencies=[StorableBody, Once, Work],
)
def fill_review_queue(
    name: Name, number: Number, body: ReviewQueueIn, response: Response
) -> JobOut:
    """Sample a version's judgments for people to review.

    A job judges a random part of the source (four pairs for each item) by the version and the one
    it is held against, and draws the items from three strata: pairs that the two differ on, pairs
    of low confidence, all others. Items are there when the job has succeeded. The same request
    again gives the same job; another `seed` draws other items.
    """
    with transaction() as session:
        version = aliases.get_version(session, name, number)
        against = _against(session, version, body.against)
        for one in filter(None, (version, against)):
            if holds.version(session, one.id) is None:  # deleted meanwhile
                raise problems.not_found("version", one.ref)
        dataset = _need_source(session, version, body.source)
        settings = ReviewSettings(
            version=version.id,
            ref=version.ref,
            against=None if against is None else against.id,
            against_ref=None if against is None else against.ref,
            **body.model_dump(exclude={"against"}),
        ).model_dump(mode="json")
        reviews.lock(session, version.model)  # so that of two equal requests one finds the other's
        job = session.scalars(
            select(Job).where(
                Job.kind == "review",
                Job.model == version.model,
                Job.recipe == settings,
                Job.state.not_in((State.FAILED, State.CANCELLED, State.CANCELLING)),
            )
        ).first()
        if job is None:
            job = Job(
                id=new_id("review"),
                kind="review",
                state=State.PENDING,
                model=version.model,
                dataset_id=dataset,
                recipe=settings,
            )
            session.add(job)
            pipeline.start_job(session, job)
            session.flush()
            session.refresh(job)
        (out,) = views.jobs(session, [job])
        location = response.headers["Location"] = f"/v1/jobs/{out.id}"
        keep(session, out, location)
    return out


@router.get("/v1/models/{name}/versions/{number}/reviews", responses=problem_docs(404))
def list_reviewed(
    name: Name, number: Number, after: Cursor = None, limit: Limit = 20
) -> Page[ReviewedOut]:
    """Items of a version with all their answers and comments, the newest queue's first.

    Only those that have as many answers as their queue asks for: the others must stay blind.
    """
    answers = select(func.count()).where(
        Review.item_id == ReviewItem.id, Review.verdict.is_not(None)
    )
    with transaction() as session:
        version = aliases.get_version(session, name, number)
        query = select(ReviewItem).where(
            ReviewItem.version_id == version.id,
            answers.scalar_subquery() >= ReviewItem.overlap,
        )
        if after is not None:
            query = query.where(ReviewItem.id < after)
        rows = session.scalars(query.order_by(ReviewItem.id.desc()).limit(limit + 1)).all()
        return Page(
            data=[_reviewed(session, row) for row in rows[:limit]], has_more=len(rows) > limit
        )


@router.get("/v1/models/{name}/versions/{number}/reviews/summary", responses=problem_docs(404))
def get_review_summary(name: Name, number: Number) -> ReviewSummary:
    """How well a version agrees with the people who reviewed it.

    Agreement with its Wilson interval, Cohen's kappa, the confusion matrix, all of it by stratum
    and estimated for the whole source, and whether agreement has fallen since the version before.
    The model's tie is right only where people say tie; `without_ties` leaves out items on which
    either of them did. Unparsable judgments agree with nobody.
    """
    with transaction() as session:
        return reviews.summary(session, aliases.get_version(session, name, number).id)


@router.get("/v1/models/{name}/reviews/drift", responses=problem_docs(404))
def get_review_drift(name: Name) -> ReviewDrift:
    """Whether a model's agreement with people falls, from version to version and over time.

    All figures are estimates for the source, so that queues with more or fewer hard items can be
    held against each other; fill them from the same source.
    """
    with transaction() as session:
        known = select(ModelVersion.id).where(ModelVersion.model == name).limit(1)
        if session.scalar(known) is None:
            raise problems.not_found("model", name)
        return reviews.drift(session, name)


@router.get("/v1/reviews/next", responses=problem_docs(404, 409))
def next_review(
    version: Annotated[
        str,
        Query(
            min_length=1,
            max_length=200,
            description="name, name:alias or name:number.",
            examples=["tour:1"],
        ),
    ],
    reviewer: Annotated[Reviewer, Query()],
    response: Response,
) -> ReviewNextOut:
    """The next item for a reviewer, without a word on what the model said.

    It is held for 30 minutes; until it is answered or skipped, the same one comes again.
    """
    response.headers["Cache-Control"] = "no-store"
    with transaction() as session:
        found = aliases.resolve(session, version)
        reviews.lock(session, found.model)
        open_item = session.execute(_open_to(found.id, reviewer)).one_or_none()
        if open_item is None:
            return ReviewNextOut(item=None, left=0)
        item_id, left = open_item
        item = session.get_one(ReviewItem, item_id)
        held_until = session.execute(
            insert(Review)
            .values(item_id=item.id, reviewer=reviewer, held_until=_now() + HELD)
            .on_conflict_do_update(
                index_elements=[Review.item_id, Review.reviewer],
                set_={
                    "held_until": _now() + HELD,
                    "shown_at": case((Review.held_until < _now(), _now()), else_=Review.shown_at),
                },
            )
            .returning(Review.held_until)
        ).scalar_one()
        out = ReviewItemOut(**_texts(item), held_until=held_until)
        return ReviewNextOut(item=out, left=left)


@router.post(
    "/v1/reviews/{item}/answers", responses=problem_docs(404, 409), dependencies=[StorableBody]
)
def answer_review(item: Item, body: ReviewAnswerIn) -> ReviewAnswerOut:
    """A reviewer's verdict; the reply tells what the model said.

    An answer cannot be changed, for by then it would not be blind: the same again is replayed,
    another one is refused with 409. So is one that comes when the item is no longer held for the
    reviewer and has all the answers it asks for: it is listed then, with what the model said.
    """
    with transaction() as session:
        row, review = _shown(session, item, body.reviewer)
        verdict = _turned(row, body.verdict)
        if review.verdict is None:
            _need_blind(session, row, review)
            version = session.get_one(ModelVersion, row.version_id)
            before = reviews.state(session, version.model)
            answered_at = session.scalars(select(_now())).one()
            review.verdict, review.answered_at = verdict, answered_at
            review.comment, review.skipped = body.comment, False
            session.flush()
            reviews.tell_alarm(session, version.model, before)
        elif (review.verdict, review.comment) != (verdict, body.comment):
            detail = f"{body.reviewer!r} has answered item {item!r}; an answer cannot be changed"
            raise Refused(409, "already_answered", detail)
        return _answered(session, row, review)


@router.post(
    "/v1/reviews/{item}/skip", responses=problem_docs(404, 409), dependencies=[StorableBody]
)
def skip_review(item: Item, body: ReviewSkipIn) -> ReviewSkippedOut:
    """Leave an item to others; this reviewer does not get it again."""
    with transaction() as session:
        _, review = _shown(session, item, body.reviewer)
        if review.verdict is not None:
            detail = f"{body.reviewer!r} has answered item {item!r}"
            raise Refused(409, "already_answered", detail)
        review.skipped = True
        return ReviewSkippedOut(item=item, reviewer=body.reviewer)


def _against(session: Session, version: ModelVersion, ref: str | None) -> ModelVersion | None:
    """The version to look for disagreements with: as asked, the parent, or `latest`."""
    if ref is not None:
        found = aliases.resolve(session, ref)
        if found.id == version.id:
            detail = f"{ref!r} is the version itself; there is nothing to disagree on"
            raise Refused(422, "same_version", detail, param="against")
        return found
    if version.parent_id is not None:
        return session.get_one(ModelVersion, version.parent_id)
    latest = aliases.find(session, version.model, aliases.LATEST)
    if latest is None or latest.version_id == version.id:
        return None
    return session.get_one(ModelVersion, latest.version_id)


def _need_source(session: Session, version: ModelVersion, source: str) -> str | None:
    """The dataset's id, if the source is one; refuses a source without pairs."""
    dataset = None if source in (HELDOUT, TRAFFIC) else holds.dataset(session, source)
    if dataset is None and source not in (HELDOUT, TRAFFIC):
        raise problems.not_found("dataset", source, "source")
    if dataset is not None and dataset.kind not in PAIRED:
        detail = f"dataset {source!r} is of kind {dataset.kind!r}; needed: {' or '.join(PAIRED)}"
        raise Refused(422, "wrong_dataset_kind", detail, param="source")
    found = find_source(session, version, source)
    if found is not None and found.rows:
        return None if dataset is None else dataset.id
    if source == TRAFFIC:
        detail = f"no question to {version.model!r} is logged with its texts"
        raise Refused(422, "no_traffic", detail, param="source")
    detail = f"{version.ref} was not validated on held-out pairs; name a dataset as the source"
    raise Refused(422, "no_heldout_pairs", detail, param="source")


def _now() -> Function[dt.datetime]:
    return func.clock_timestamp(type_=Review.held_until.type)


def _open_to(version_id: str, reviewer: str) -> Select[str, int]:
    """The item that this reviewer gets, the one in hand first, and how many there are for them.

    An item is open while fewer others than its overlap have answered it or hold it, and to nobody
    who has answered or skipped it, or was told what this version said of the same texts.
    """
    twin, seen = aliased(ReviewItem), aliased(Review)
    told = (
        select(seen.item_id)
        .join(twin, twin.id == seen.item_id)
        .where(
            seen.reviewer == reviewer,
            seen.verdict.is_not(None),
            or_(twin.version_id == version_id, twin.against_id == version_id),
            twin.context == ReviewItem.context,
            twin.instruction == ReviewItem.instruction,
            twin.response_a == ReviewItem.response_a,
            twin.response_b == ReviewItem.response_b,
        )
        .correlate(ReviewItem)
        .exists()
    )
    of_item = Review.item_id == ReviewItem.id
    mine, held = Review.reviewer == reviewer, Review.held_until > _now()
    done = or_(Review.verdict.is_not(None), Review.skipped)
    taken = or_(Review.verdict.is_not(None), and_(~Review.skipped, held))
    others = select(func.count()).where(of_item, ~mine, taken).scalar_subquery()
    in_hand = select(Review.item_id).where(of_item, mine, held).exists()
    return (
        select(ReviewItem.id, func.count().over())
        .where(
            ReviewItem.version_id == version_id,
            ReviewItem.instruction != "",  # else its texts were removed, by their age
            ~select(Review.item_id).where(of_item, mine, done).exists(),
            ~told,
            others < ReviewItem.overlap,
        )
        .order_by(in_hand.desc(), ReviewItem.job_id, ReviewItem.position)
        .limit(1)
    )


def _shown(session: Session, item: str, reviewer: str) -> tuple[ReviewItem, Review]:
    """An item and a reviewer's hold of it, with the model's reviews locked.

    Who was never given the item is refused: an id alone does not make a blind reviewer.
    """
    row = session.get(ReviewItem, item)
    if row is None:
        raise problems.not_found("item", item)
    version = session.get_one(ModelVersion, row.version_id)
    reviews.lock(session, version.model)
    review = session.get(Review, (item, reviewer))
    if review is None:
        raise Refused(409, "not_shown", f"item {item!r} was not given to {reviewer!r}")
    return row, review


def _need_blind(session: Session, item: ReviewItem, review: Review) -> None:
    """Refuses a reviewer without a hold once the item is listed (`list_reviewed`)."""
    has = Review.item_id == item.id
    held = ~Review.skipped & (Review.held_until > _now())
    answers = select(func.count()).where(has, Review.verdict.is_not(None))
    holds = select(held).where(has, Review.reviewer == review.reviewer)
    if not session.scalar(holds) and (session.scalar(answers) or 0) >= item.overlap:
        detail = f"item {item.id!r} has its answers and is listed with the model's verdict"
        raise Refused(409, "already_published", detail)


def _turned(item: ReviewItem, verdict: str) -> Verdict:
    """A verdict from the letters as shown into the pair's own, or back."""
    return swap(Verdict(verdict)) if item.swapped else Verdict(verdict)


def _texts(item: ReviewItem) -> dict[str, Any]:
    """What is shown of an item, as it is shown."""
    first, second = item.response_a, item.response_b
    if item.swapped:
        first, second = second, first
    return {
        "id": item.id,
        "context": item.context,
        "instruction": item.instruction,
        "response_a": first,
        "response_b": second,
    }


def _reviewed(session: Session, item: ReviewItem) -> ReviewedOut:
    answers = session.scalars(
        select(Review)
        .where(Review.item_id == item.id, Review.verdict.is_not(None))
        .order_by(Review.answered_at)
    )
    told = [_answered(session, item, review) for review in answers]
    return ReviewedOut(**_texts(item), answers=told)


def _answered(session: Session, item: ReviewItem, review: Review) -> ReviewAnswerOut:
    """What the model said, in the letters as the reviewer saw them."""
    assert review.verdict is not None and review.answered_at is not None
    against = session.get(ModelVersion, item.against_id) if item.against_id else None
    said = item.against_verdict
    return ReviewAnswerOut(
        item=item.id,
        reviewer=review.reviewer,
        verdict=cast(PersonVerdict, _turned(item, review.verdict).value),
        comment=review.comment,
        seconds=(review.answered_at - review.shown_at).total_seconds(),
        model=session.get_one(ModelVersion, item.version_id).ref,
        model_verdict=_turned(item, item.verdict).value,
        agrees=review.verdict == item.verdict,
        confidence=item.confidence,
        orders_agree=item.orders_agree,
        stratum=cast(Stratum, item.stratum),
        against=against and against.ref,
        against_verdict=None if said is None else _turned(item, said).value,
    )
