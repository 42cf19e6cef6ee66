"""Promotions: an alias moves to a version if the gate lets it, or a key forces it; all is recorded.

Everything here runs inside the caller's transaction. The version's job is locked first, then the
alias, so that two promotions are one after the other and the second meets what the first made.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from selftaught import aliases, gate, reviews, totals, webhooks
from selftaught.contracts import Finding, GateSettings
from selftaught.database.tables import Alias, Evaluation, Job, ModelVersion, Promotion
from selftaught.ids import new_id
from selftaught.keys import Caller
from selftaught.work.events import emit
from selftaught.work.pipeline import lock_job

CANDIDATE = "candidate"


@dataclass(frozen=True)
class Asked:
    """Why a promotion is tried, and who tries it.

    force: promote whatever the gate finds; needs a reason and a caller with a key.
    """

    reason: str
    caller: Caller | None = None
    force: bool = False


def promote(
    session: Session,
    version: ModelVersion,
    alias: str,
    asked: Asked,
    job_id: str | None = None,
    expected_revision: int | None = None,
) -> Promotion:
    """Point an alias at a version if every rule passes against the version that it names now.

    `job_id`: the job whose gate this is. Its own scores are preferred; without it, or where it has
    not scored both versions, those of the newest job that has. Its seed takes no version's place.
    The decision is recorded, refused or not, and told to the job that made the version.
    Raises BadAliasName, RevisionMismatch.
    """
    teller = job_id or version.job_id
    if teller is not None:
        lock_job(session, teller)
    aliases.check_name(alias)
    by = asked.caller.key_name if asked.caller is not None else None
    holder = aliases.lock(session, version.model, alias)
    if expected_revision is not None:
        actual = holder.revision if holder is not None else 0
        if actual != expected_revision:
            raise aliases.RevisionMismatch(alias, expected_revision, actual)
    if holder is None:
        try:
            why = _why(asked, job_id, forced=False)
            aliases.move(session, version.model, alias, version, why, expected_revision=0, by=by)
        except aliases.RevisionMismatch:  # another was first; this one has to beat it
            if expected_revision is not None:
                raise
            holder = aliases.lock(session, version.model, alias)
    findings = _findings(session, version, holder, job_id)
    passed = all(finding.passed for finding in findings)
    forced = asked.force and not passed
    incumbent_id = holder.version_id if holder is not None else None
    if holder is not None and (passed or forced):
        aliases.move(session, version.model, alias, version, _why(asked, job_id, forced), by=by)
    decision = Promotion(
        id=new_id("pro"),
        version_id=version.id,
        alias=alias,
        incumbent_id=incumbent_id,
        promoted=passed or forced,
        forced=forced,
        findings=[finding.model_dump() for finding in findings],
        reason=asked.reason,
        job_id=job_id,
        key_id=asked.caller.key_id if asked.caller is not None else None,
        key_name=by,
    )
    session.add(decision)
    part = "forced" if forced else "promoted" if decision.promoted else "refused"
    totals.add(session, "promotions", part=part)
    _tell(session, teller, version, decision)
    session.flush()
    session.refresh(decision)
    return decision


def failed(decision: Promotion) -> list[Finding]:
    """The findings of the rules that failed."""
    findings = map(Finding.model_validate, decision.findings)
    return [finding for finding in findings if not finding.passed]


def waits_for_reviews(decision: Promotion) -> bool:
    """The version is refused only for want of reviews."""
    return not decision.promoted and {finding.rule for finding in failed(decision)} == {"reviews"}


def _why(asked: Asked, job_id: str | None, forced: bool) -> str:
    """What the alias's history says."""
    if forced and asked.caller is not None:
        return f"forced by {asked.caller.key_name}: {asked.reason}"
    return f"gate of {job_id}" if job_id is not None else asked.reason


def _tell(session: Session, job_id: str | None, version: ModelVersion, decision: Promotion) -> None:
    told = {
        "iteration": version.iteration_number,
        "version": version.ref,
        "alias": decision.alias,
        "promoted": decision.promoted,
        "forced": decision.forced,
        "reasons": [finding["detail"] for finding in decision.findings],
        "by": decision.key_name,
    }
    if job_id is not None:
        emit(session, job_id, "gate.decided", told)
    about = {"promotion": decision.id, "model": version.model, "job": job_id}
    webhooks.tell(session, version.project_id, "promotion.decided", {**told, **about})


def _findings(
    session: Session, version: ModelVersion, holder: Alias | None, job_id: str | None
) -> list[Finding]:
    if holder is not None and holder.version_id == version.id:
        return [Finding(rule="holder", passed=True, detail=f"{version.ref} holds {holder.alias}")]
    if holder is None:
        return gate.decide({}, None, GateSettings(), None)
    if job_id is not None and version.iteration_number == 0:
        incumbent = session.get_one(ModelVersion, holder.version_id)
        return [gate.seed(version.ref, incumbent.ref)]
    common = _common_job(session, version.id, holder.version_id, job_id)
    theirs = {} if common is None else scores(session, holder.version_id, common)
    scored_by = common or job_id or version.job_id
    mine = {} if scored_by is None else scores(session, version.id, scored_by)
    settings = _settings(session, scored_by, version)
    reviewed = None
    if settings.reviews.minimum:  # every item counts for the pairs that it was drawn from
        reviewed = reviews.summary(session, version.id).source
    return gate.decide(mine, theirs, settings, reviewed)


def _common_job(
    session: Session, version_id: str, incumbent_id: str, preferred: str | None
) -> str | None:
    """The job that has scored both on its held-out pairs: the preferred one, else the newest."""
    mine, theirs = aliased(Evaluation), aliased(Evaluation)
    found = session.scalars(
        select(mine.job_id)
        .join(theirs, theirs.job_id == mine.job_id)
        .where(mine.version_id == version_id, theirs.version_id == incumbent_id)
        .where(mine.set == gate.HELDOUT, theirs.set == gate.HELDOUT)
        .order_by(mine.job_id.desc())
    ).all()
    return preferred if preferred in found else next(iter(found), None)


def scores(session: Session, version_id: str, job_id: str) -> dict[str, gate.Scored]:
    """A version on each of the sets that a job's gate compares."""
    found = session.scalars(
        select(Evaluation).where(
            Evaluation.version_id == version_id,
            Evaluation.job_id == job_id,
            (Evaluation.set == gate.HELDOUT) | Evaluation.set.startswith(gate.LABELLED),
        )
    )
    return {row.set: gate.Scored(row.metrics, row.right) for row in found}


def _settings(session: Session, job_id: str | None, version: ModelVersion) -> GateSettings:
    """The gate of a job's recipe, or of the version's if that job was deleted; the defaults where
    no job is concerned."""
    job = None if job_id is None else session.get(Job, job_id)
    recipe = job.recipe if job is not None else version.lineage.get("recipe") if job_id else None
    return GateSettings.model_validate((recipe or {}).get("gate", {}))
