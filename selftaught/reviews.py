"""What people's reviews say of versions: agreement, kappa, and whether agreement has fallen.

Items are sampled from strata, hard ones more often. So there are two kinds of figures: plain ones,
over the items as they are, and estimates for the source, where every item counts for the pairs that
it stands for (Hajek's ratio of Horvitz-Thompson totals: Horvitz and Thompson 1952, JASA 47; Sarndal
et al. 1992, section 5.7). Functions read rows in the caller's transaction.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from selftaught.agreement import (
    agreement,
    cohen_kappa,
    effective_n,
    fisher_fell,
    rater_table,
)
from selftaught.contracts import (
    Agreement,
    Confusion,
    DriftComparison,
    DriftPoint,
    DriftState,
    ReviewDrift,
    ReviewersAgreement,
    ReviewSummary,
    SourceAgreement,
    Stratum,
    StratumAgreement,
)
from selftaught.database.tables import ModelVersion, Review, ReviewItem
from selftaught.judging import Verdict, swap, tally
from selftaught.judging.scoring import wilson
from selftaught.work.events import emit

logger = logging.getLogger(__name__)

WATCH, ALARM = 0.05, 0.01
"""One-sided p under which a fall of agreement is watched, is an alarm."""
ENOUGH = 30
"""Reviewed items on each side without which there is no test; also those of a window."""
NEWEST = 20
"""Versions and windows that a trend goes back."""
STATES: tuple[DriftState, ...] = ("ok", "watch", "alarm")


@dataclass(frozen=True)
class Reviewed:
    """An item with what people said of it. `at`: the last answer's time.

    Letters are those as shown, which are drawn at random. In those of labelled pairs nearly all
    would be A, the two would agree by chance already, and kappa would say nothing.
    """

    model: Verdict
    people: tuple[Verdict, ...]
    stratum: str
    weight: float
    at: dt.datetime

    @property
    def person(self) -> Verdict:
        """The majority; a tie if two are level."""
        return tally(self.people).verdict


def summary(session: Session, version_id: str) -> ReviewSummary:
    """A version's reviews so far."""
    version = session.get_one(ModelVersion, version_id)
    items = reviewed(session, version_id)
    queued: dict[str, tuple[int, float]] = {
        stratum: (count, pairs)
        for stratum, count, pairs in session.execute(
            select(ReviewItem.stratum, func.count(), func.sum(ReviewItem.weight))
            .where(ReviewItem.version_id == version_id)
            .group_by(ReviewItem.stratum)
        )
    }
    reviewers, skipped = session.execute(
        select(
            func.count(Review.reviewer.distinct()).filter(Review.verdict.is_not(None)),
            func.count().filter(Review.skipped),
        )
        .join(ReviewItem)
        .where(ReviewItem.version_id == version_id)
    ).one()
    said = Counter((item.model, item.person) for item in items)
    decided = {Verdict.A, Verdict.B}
    return ReviewSummary(
        version=version.ref,
        items=sum(count for count, _ in queued.values()),
        answers=sum(len(item.people) for item in items),
        reviewers=reviewers,
        skipped=skipped,
        **plain(items).model_dump(),
        without_ties=plain([one for one in items if {one.model, one.person} <= decided]),
        source=estimate(items),
        strata={
            cast(Stratum, stratum): StratumAgreement(
                **plain([one for one in items if one.stratum == stratum]).model_dump(),
                items=count,
                pairs=pairs,
            )
            for stratum, (count, pairs) in sorted(queued.items())
        },
        confusion=[
            Confusion(model=model.value, person=cast(Any, person.value), n=n)
            for (model, person), n in sorted(said.items())
        ],
        between_reviewers=_between(items),
        drift=_against_before(session, version, items),
    )


def drift(session: Session, model: str) -> ReviewDrift:
    """Has a model's agreement with people fallen, from version to version or over time?"""
    counted = _reviewed_versions(session, model)[:NEWEST]
    found = [(version, reviewed(session, version.id)) for version, _ in reversed(counted)]
    between, over_time = _comparisons(session, found[-1] if found else None)
    windows: list[DriftPoint] = []
    if found:
        newest, items = found[-1]
        parts = [items[start : start + ENOUGH] for start in range(0, len(items), ENOUGH)]
        windows = [_point(newest, part) for part in parts[-NEWEST:]]
    return ReviewDrift(
        model=model,
        state=_worst(between, over_time),
        versions=[_point(version, items) for version, items in found],
        windows=windows,
        between_versions=between,
        over_time=over_time,
    )


def standing(
    session: Session, model: str
) -> tuple[ModelVersion, SourceAgreement, DriftState] | None:
    """The newest reviewed version of a model, its agreement, and the state of :func:`drift`."""
    counted = _reviewed_versions(session, model)
    if not counted:
        return None
    version = counted[0][0]
    items = reviewed(session, version.id)
    return version, estimate(items), _worst(*_comparisons(session, (version, items)))


def state(session: Session, model: str) -> DriftState:
    """Only the state of :func:`drift`."""
    found = standing(session, model)
    return "ok" if found is None else found[2]


def reviewed_models(session: Session) -> list[tuple[str, str]]:
    """Models of which people have reviewed something, as (project, model), in order."""
    query = (
        select(ModelVersion.project_id, ModelVersion.model)
        .join(ReviewItem, ReviewItem.version_id == ModelVersion.id)
        .join(Review)
        .where(Review.verdict.is_not(None))
    )
    found = session.execute(query.distinct().order_by(ModelVersion.project_id, ModelVersion.model))
    return [(project, model) for project, model in found]


def lock(session: Session, model: str) -> None:
    """Until the transaction ends, no other one gives out or takes in items of this model."""
    key = func.hashtextextended(f"reviews of {model}", 0)
    session.execute(select(func.pg_advisory_xact_lock(key)))


def tell_alarm(session: Session, model: str, before: DriftState) -> None:
    """An event on the newest reviewed version's job if the state has turned to alarm."""
    now = standing(session, model)
    if now is None or now[2] != "alarm" or before == "alarm":
        return
    version, found = now[0], drift(session, model)
    told = {
        name: part.model_dump(mode="json")
        for name in ("between_versions", "over_time")
        if (part := getattr(found, name)) is not None and part.state == "alarm"
    }
    logger.warning("agreement of %s with people has fallen: %s", version.ref, told)
    if version.job_id is not None:
        emit(session, version.job_id, "reviews.alarm", {"version": version.ref, **told})


def reviewed(session: Session, version_id: str) -> list[Reviewed]:
    """A version's items with an answer, by the time of the last one."""
    rows = session.execute(
        select(
            ReviewItem.id,
            ReviewItem.swapped,
            ReviewItem.verdict,
            ReviewItem.stratum,
            ReviewItem.weight,
            Review.verdict,
            Review.answered_at,
        )
        .join(Review, Review.item_id == ReviewItem.id)
        .where(ReviewItem.version_id == version_id, Review.verdict.is_not(None))
        .order_by(Review.answered_at, Review.item_id)
    )
    found: dict[str, Reviewed] = {}
    for item, swapped, said, stratum, weight, answer, at in rows:
        model, person = Verdict(said), Verdict(str(answer))
        if swapped:
            model, person = swap(model), swap(person)
        before = found.pop(item, None)  # so that the last answer's place in the order counts
        people = (*(before.people if before else ()), person)
        found[item] = Reviewed(model, people, stratum, weight, cast(dt.datetime, at))
    return list(found.values())


def plain(items: Sequence[Reviewed]) -> Agreement:
    """Every item counts as one."""
    n = len(items)
    same = sum(one.model == one.person for one in items)
    return Agreement(n=n, **_figures(items, [1.0] * n, same, n))


def estimate(items: Sequence[Reviewed]) -> SourceAgreement:
    """Every item counts for the pairs of the source that it stands for.

    The interval is Wilson's and kappa's error is that of a plain sample, both of the effective
    size.
    """
    size = effective_n([one.weight for one in items])
    pairs = sum(one.weight for one in items)
    weights = [one.weight * size / pairs for one in items] if items else []
    same = sum(w for one, w in zip(items, weights, strict=True) if one.model == one.person)
    figures = _figures(items, weights, same, size)
    return SourceAgreement(n=len(items), effective_n=size, pairs=pairs, **figures)


def compare(before: Sequence[Reviewed], after: Sequence[Reviewed]) -> DriftComparison:
    """Did agreement fall? Tested on the estimates, as if of their effective sizes, rounded down."""
    found = [estimate(items) for items in (before, after)]
    enough = min(len(before), len(after)) >= ENOUGH
    old, new = (one.agreement for one in found)
    fell = None if old is None or new is None else old - new
    p = None
    if enough and fell is not None:
        p = fisher_fell(*(_counts(one) for one in found))
    name: DriftState = "ok"
    if p is not None:
        name = "alarm" if p < ALARM else "watch" if p < WATCH else "ok"
    return DriftComparison(
        state=name, enough=enough, before=found[0], after=found[1], fell=fell, p=p
    )


def _counts(one: SourceAgreement) -> tuple[int, int]:
    n = int(one.effective_n + 1e-9)
    return round((one.agreement or 0.0) * n), n


def _figures(
    items: Sequence[Reviewed], weights: Sequence[float], same: float, n: float
) -> dict[str, Any]:
    table: defaultdict[tuple[str, str], float] = defaultdict(float)
    for one, weight in zip(items, weights, strict=True):
        table[one.model, one.person] += weight
    kappa = cohen_kappa(table)
    return {
        "agreement": min(1.0, same / n) if n else None,
        "ci95": wilson(same, n),
        "kappa": None if kappa is None else kappa.value,
        "kappa_se": None if kappa is None else kappa.se,
        "kappa_ci95": None if kappa is None else (kappa.low, kappa.high),
    }


def _between(items: Iterable[Reviewed]) -> ReviewersAgreement:
    several = [one.people for one in items if len(one.people) > 1]
    table = rater_table(several)
    kappa = cohen_kappa(table)
    return ReviewersAgreement(
        items=len(several),
        agreement=agreement(table),
        kappa=None if kappa is None else kappa.value,
    )


def _reviewed_versions(session: Session, model: str) -> list[tuple[ModelVersion, int]]:
    """Versions with reviewed items and how many, the newest first."""
    query = (
        select(ModelVersion, func.count(ReviewItem.id.distinct()))
        .join(ReviewItem, ReviewItem.version_id == ModelVersion.id)
        .join(Review)
        .where(ModelVersion.model == model, Review.verdict.is_not(None))
        .group_by(ModelVersion.id)
        .order_by(ModelVersion.number.desc())
    )
    return [(version, count) for version, count in session.execute(query)]


def _against_before(
    session: Session, version: ModelVersion, items: Sequence[Reviewed]
) -> DriftComparison | None:
    """Against the newest older version with enough reviews, else with any."""
    older = [
        (one, count)
        for one, count in _reviewed_versions(session, version.model)
        if one.number < version.number
    ]
    with_enough = [pair for pair in older if pair[1] >= ENOUGH]
    if not older:
        return None
    return compare(reviewed(session, (with_enough or older)[0][0].id), items)


def _comparisons(
    session: Session, newest: tuple[ModelVersion, Sequence[Reviewed]] | None
) -> tuple[DriftComparison | None, DriftComparison | None]:
    """Of the newest reviewed version: with the one before it, and of its newest full window with
    all that was before that."""
    if newest is None:
        return None, None
    version, items = newest
    full = len(items) // ENOUGH * ENOUGH
    start = full - ENOUGH
    over_time = compare(items[:start], items[start:full]) if start > 0 else None
    return _against_before(session, version, items), over_time


def _worst(*comparisons: DriftComparison | None) -> DriftState:
    return max(
        (one.state for one in comparisons if one is not None), key=STATES.index, default="ok"
    )


def _point(version: ModelVersion, items: Sequence[Reviewed]) -> DriftPoint:
    figures = estimate(items).model_dump()
    return DriftPoint(version=version.ref, first=items[0].at, last=items[-1].at, **figures)
