"""Every table, typed. The schema itself is made by migrations/ and by nothing else."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JSON = dict[str, Any]
STATES = {
    "jobs": "'pending','running','pausing','paused','cancelling','succeeded','failed','cancelled'",
    "iterations": "'running','succeeded','failed','cancelled'",
    "stages": "'running','succeeded','failed','cancelled'",
    "chunks": "'ready','running','succeeded','failed','cancelled'",
}
"""Which states a table has; work/states.py says which may follow which."""


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        JSON: JSONB(none_as_null=True),
        dt.datetime: DateTime(timezone=True),
    }


def _state(name: str) -> CheckConstraint:
    return CheckConstraint(f"state IN ({STATES[name]})", name=f"{name}_state")


def _created() -> Mapped[dt.datetime]:
    return mapped_column(server_default=func.clock_timestamp())


def _project(primary_key: bool = False) -> Mapped[str]:
    """Whose row it is: the project of the transaction that adds it (selftaught/tenancy.py)."""
    return mapped_column(
        ForeignKey("projects.id"),
        primary_key=primary_key,
        server_default=text("nullif(current_setting('selftaught.project', true), '')"),
    )


class Project(Base):
    """A tenant: what belongs to one project no other can see."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True, doc="Its name; it never changes.")
    limits: Mapped[JSON] = mapped_column(
        server_default=text("'{}'::jsonb"), doc="contracts.Limits: rates and quotas."
    )
    created_at: Mapped[dt.datetime] = _created()


class Artifact(Base):
    """A file that outlives a stage; published before its row, never changed after."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("artifacts_project", "project_id", postgresql_include=["bytes"]),)
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = _project()
    kind: Mapped[str]
    path: Mapped[str] = mapped_column(unique=True, doc="Relative to the artifacts folder.")
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[dt.datetime] = _created()


class Dataset(Base):
    """An uploaded file, normalised to JSONL, immutable.

    A deleted one that jobs name stays as a row without data: when, and the hash of what it was.
    """

    __tablename__ = "datasets"
    __table_args__ = (
        Index("datasets_project", "project_id", "id"),
        CheckConstraint(
            "(deleted_at IS NULL) = (artifact_id IS NOT NULL)", name="datasets_data_or_deleted"
        ),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = _project()
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(doc="instructions | labelled | pairs | benchmark")
    benchmark: Mapped[str | None] = mapped_column(doc="Which one, by name.")
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id"))
    created_at: Mapped[dt.datetime] = _created()
    deleted_at: Mapped[dt.datetime | None]
    sha256: Mapped[str | None] = mapped_column(doc="Of the data that was deleted.")


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        _state("jobs"),
        CheckConstraint(
            "kind IN ('loop','registration','evaluation','review','batch')", name="jobs_kind"
        ),
        Index("jobs_project", "project_id", "created_at", "id"),
        Index("jobs_state", "project_id", "state", "created_at", "id"),
        Index("jobs_kind", "project_id", "kind", "created_at", "id"),
        Index("jobs_model", "project_id", "model", "created_at", "id"),
        Index("jobs_dataset", "dataset_id"),
        Index("jobs_labelled_dataset", "labelled_dataset_id"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = _project()
    kind: Mapped[str] = mapped_column(server_default="loop")
    state: Mapped[str]
    model: Mapped[str] = mapped_column(doc="Name under which versions are registered.")
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    labelled_dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    recipe: Mapped[JSON] = mapped_column(doc="Resolved recipe; an evaluation's own settings.")
    event_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    error: Mapped[JSON | None]
    created_at: Mapped[dt.datetime] = _created()
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]
    cancel_requested_at: Mapped[dt.datetime | None]
    data_removed_at: Mapped[dt.datetime | None] = mapped_column(
        doc="When the files that it made were removed (selftaught.keeping.retention)."
    )
    paused_at: Mapped[dt.datetime | None] = mapped_column(doc="Null unless it is paused now.")
    retried_at: Mapped[dt.datetime | None]
    request_id: Mapped[str | None] = mapped_column(doc="Of the request that made it.")
    traceparent: Mapped[str | None] = mapped_column(doc="Of its span, if it was traced.")


class Total(Base):
    """What has been counted ever since, over all projects (selftaught/totals.py)."""

    __tablename__ = "totals"
    name: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True, doc="Empty: of none.")
    part: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class StoredTemplate(Base):
    """An uploaded prompt template; a name never changes its content."""

    __tablename__ = "templates"
    project_id: Mapped[str] = _project(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    sha256: Mapped[str]
    content: Mapped[JSON]
    created_at: Mapped[dt.datetime] = _created()


class Secret(Base):
    """A random value that this deployment made for itself, and that no route tells."""

    __tablename__ = "secrets"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Iteration(Base):
    __tablename__ = "iterations"
    __table_args__ = (UniqueConstraint("job_id", "number"), _state("iterations"))
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    state: Mapped[str]
    version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    created_at: Mapped[dt.datetime] = _created()
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class Stage(Base):
    __tablename__ = "stages"
    __table_args__ = (UniqueConstraint("iteration_id", "kind"), _state("stages"))
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    iteration_id: Mapped[str] = mapped_column(ForeignKey("iterations.id"))
    kind: Mapped[str]
    position: Mapped[int]
    state: Mapped[str]
    chunks: Mapped[int]
    chunks_done: Mapped[int] = mapped_column(server_default=text("0"))
    counts: Mapped[JSON] = mapped_column(server_default=text("'{}'::jsonb"))
    metrics: Mapped[JSON] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[dt.datetime] = _created()
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class Chunk(Base):
    """The unit of work: one Celery message, one lease, one applied result."""

    __tablename__ = "chunks"
    __table_args__ = (
        UniqueConstraint("stage_id", "position"),
        _state("chunks"),
        CheckConstraint(
            "(state = 'running') = (lock_token IS NOT NULL)", name="chunks_lease_iff_running"
        ),
        Index("chunks_open", "state", postgresql_where=text("state IN ('ready','running')")),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    stage_id: Mapped[str] = mapped_column(ForeignKey("stages.id"))
    position: Mapped[int]
    kind: Mapped[str]
    queue: Mapped[str]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(server_default=text("0"), doc="Leases taken so far.")
    lock_token: Mapped[str | None]
    lock_owner: Mapped[str | None]
    lock_expires_at: Mapped[dt.datetime | None]
    rung_at: Mapped[dt.datetime | None] = mapped_column(doc="When it was last announced.")
    input: Mapped[JSON]
    counts: Mapped[JSON] = mapped_column(server_default=text("'{}'::jsonb"))
    metrics: Mapped[JSON] = mapped_column(server_default=text("'{}'::jsonb"))
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id"))
    error: Mapped[JSON | None]
    created_at: Mapped[dt.datetime] = _created()
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class Outbox(Base):
    """Messages to send, written in the transaction that makes their chunk ready.

    One whose `created_at` is still to come waits for it: so a chunk is tried again later.
    """

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    chunk_id: Mapped[str] = mapped_column(ForeignKey("chunks.id"))
    queue: Mapped[str]
    created_at: Mapped[dt.datetime] = _created()


class Event(Base):
    """What happened to a job, numbered without gaps per job (see work/events.py)."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str]
    data: Mapped[JSON]
    created_at: Mapped[dt.datetime] = _created()


class ModelVersion(Base):
    """An immutable folder of weights with its lineage."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("project_id", "model", "number"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = _project()
    model: Mapped[str]
    number: Mapped[int]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    iteration_number: Mapped[int | None]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    path: Mapped[str] = mapped_column(doc="Folder of weights; absolute for base models.")
    sha256: Mapped[str] = mapped_column(doc="Over the folder's files and names.")
    lineage: Mapped[JSON]
    created_at: Mapped[dt.datetime] = _created()

    @property
    def ref(self) -> str:
        """`name:number`."""
        return f"{self.model}:{self.number}"


class DeletedVersion(Base):
    """A version that is no more. Its number is never given to another one."""

    __tablename__ = "deleted_versions"
    __table_args__ = (UniqueConstraint("project_id", "model", "number"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = _project()
    model: Mapped[str]
    number: Mapped[int]
    sha256: Mapped[str] = mapped_column(doc="Of its weights.")
    deleted_at: Mapped[dt.datetime] = _created()


class Evaluation(Base):
    """A version's summary on one set of one job."""

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("version_id", "job_id", "set"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    job_id: Mapped[str] = mapped_column(doc="Which may have been deleted since.")
    set: Mapped[str] = mapped_column(
        doc="heldout | labelled | labelled/<dataset id> | <benchmark>/<scoring>"
    )
    template: Mapped[str | None] = mapped_column(doc="What the judge was asked with, by name.")
    template_sha256: Mapped[str | None]
    metrics: Mapped[JSON]
    right: Mapped[str | None] = mapped_column(
        doc="Of the gate's sets: '1' or '0' for each pair, in the set's order (gate.Scored)."
    )
    created_at: Mapped[dt.datetime] = _created()


class ApiKey(Base):
    """A key that somebody may send; its secret is known to its holder only."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = _project()
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(doc="The secret's first characters, to tell keys apart.")
    sha256: Mapped[str] = mapped_column(unique=True, doc="Of the whole secret.")
    former_sha256: Mapped[str | None] = mapped_column(
        unique=True, doc="Of the secret before the last rotation."
    )
    former_until: Mapped[dt.datetime | None] = mapped_column(doc="So long that one is good, too.")
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String))
    created_at: Mapped[dt.datetime] = _created()
    expires_at: Mapped[dt.datetime | None]
    revoked_at: Mapped[dt.datetime | None]
    last_used_at: Mapped[dt.datetime | None]


class Usage(Base):
    """What a project has used on a day (UTC); see selftaught/usage.py."""

    __tablename__ = "usage"
    project_id: Mapped[str] = _project(primary_key=True)
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    gpu_seconds: Mapped[float] = mapped_column(server_default=text("0"))


class Audit(Base):
    """A request that changes something, written before it is carried out (services/api/audit.py).

    For a project's transactions it is only to be read.
    """

    __tablename__ = "audit"
    __table_args__ = (Index("audit_project", "project_id", "id"), Index("audit_at", "at"))
    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[dt.datetime] = _created()
    project_id: Mapped[str] = _project()
    key_id: Mapped[str | None]
    key_name: Mapped[str | None]
    method: Mapped[str]
    route: Mapped[str]
    path: Mapped[str]
    target: Mapped[str | None] = mapped_column(doc="Location of the answer.")
    status: Mapped[int | None] = mapped_column(doc="Of the answer; null: not known.")
    request_id: Mapped[str | None]
    client: Mapped[str | None]


class IdempotencyKey(Base):
    """A request that is to be carried out once, and what it was answered
    (services/api/idempotency.py)."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        CheckConstraint(
            "(status IS NULL) = (fingerprint IS NULL)", name="idempotency_keys_answered"
        ),
        Index("idempotency_keys_reserved", "reserved_at"),
    )
    project_id: Mapped[str] = _project(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(doc="Of the request that may answer.")
    reserved_at: Mapped[dt.datetime] = _created()
    status: Mapped[int | None] = mapped_column(doc="Null: in flight.")
    fingerprint: Mapped[str | None] = mapped_column(doc="sha256 of what was asked.")
    body: Mapped[str | None] = mapped_column(doc="Null: it showed a secret.")
    location: Mapped[str | None]


class Promotion(Base):
    """What the gate decided about a version and an alias, and who asked."""

    __tablename__ = "promotions"
    id: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    alias: Mapped[str]
    incumbent_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    promoted: Mapped[bool]
    forced: Mapped[bool]
    findings: Mapped[list[JSON]] = mapped_column(JSONB, doc="contracts.Finding, each rule's.")
    reason: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), doc="Whose gate it was.")
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    key_name: Mapped[str | None]
    created_at: Mapped[dt.datetime] = _created()


class Alias(Base):
    __tablename__ = "aliases"
    project_id: Mapped[str] = _project(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    revision: Mapped[int]
    updated_at: Mapped[dt.datetime] = _created()


class AliasHistory(Base):
    """Every move of an alias; the newest row is the alias's present."""

    __tablename__ = "alias_history"
    project_id: Mapped[str] = _project(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    reason: Mapped[str]
    key_name: Mapped[str | None] = mapped_column(doc="Of whoever moved it; a job's gate has none.")
    created_at: Mapped[dt.datetime] = _created()


class Device(Base):
    """A GPU (or the CPU) of a node that takes part in leasing, and who holds it."""

    __tablename__ = "devices"
    node: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True, doc="CUDA index, or 'cpu'.")
    position: Mapped[int]
    holder: Mapped[str | None] = mapped_column(doc="An engine server's id or a chunk's id.")
    purpose: Mapped[str | None] = mapped_column(doc="engine | training")
    expires_at: Mapped[dt.datetime | None]
    wanted_until: Mapped[dt.datetime | None] = mapped_column(doc="A training waits for it.")
    seen_at: Mapped[dt.datetime] = mapped_column(doc="When its node last said it is there.")


class EngineServer(Base):
    """A vLLM server that a node has started, or tries to."""

    __tablename__ = "engine_servers"
    __table_args__ = (
        CheckConstraint(
            "state IN ('starting','ready','draining','failed')", name="engine_servers_state"
        ),
        UniqueConstraint("node", "key"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str]
    key: Mapped[str] = mapped_column(doc="Hash of the spec.")
    spec: Mapped[JSON] = mapped_column(doc="What it serves, and how (selftaught.engines.Spec).")
    state: Mapped[str]
    url: Mapped[str | None] = mapped_column(doc="Base URL, ends in /v1.")
    pid: Mapped[int | None]
    kv_tokens: Mapped[int | None] = mapped_column(doc="Tokens that its KV cache holds.")
    restarts: Mapped[int] = mapped_column(server_default=text("0"))
    error: Mapped[JSON | None]
    created_at: Mapped[dt.datetime] = _created()
    ready_at: Mapped[dt.datetime | None]
    seen_at: Mapped[dt.datetime] = _created()


class EngineAdapter(Base):
    """An adapter that a server has loaded, or could not."""

    __tablename__ = "engine_adapters"
    __table_args__ = (
        CheckConstraint("state IN ('loading','ready','failed')", name="engine_adapters_state"),
    )
    server_id: Mapped[str] = mapped_column(
        ForeignKey("engine_servers.id", ondelete="CASCADE"), primary_key=True
    )
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    state: Mapped[str]
    difference: Mapped[float | None] = mapped_column(
        doc="Largest change of a probe's log-probabilities against the base (nats)."
    )
    error: Mapped[JSON | None]
    created_at: Mapped[dt.datetime] = _created()


class EngineDemand(Base):
    """A version that somebody asks now; renewed while they do."""

    __tablename__ = "engine_demands"
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    job_id: Mapped[str] = mapped_column(primary_key=True, doc="Empty: no job, but POST /judge.")
    key: Mapped[str]
    spec: Mapped[JSON]
    adapter: Mapped[str | None] = mapped_column(doc="Its folder; null: the base itself.")
    wanted_until: Mapped[dt.datetime]


class ReviewItem(Base):
    """A pair of a version's review queue. Verdicts and responses stand in the pair's own letters;
    a reviewer sees them swapped if `swapped`."""

    __tablename__ = "review_items"
    __table_args__ = (
        UniqueConstraint("version_id", "job_id", "position"),
        CheckConstraint(
            "stratum IN ('disagreement','low_confidence','random')", name="review_items_stratum"
        ),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), doc="That filled the queue.")
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    against_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    position: Mapped[int] = mapped_column(doc="In which order they are given out; random.")
    overlap: Mapped[int] = mapped_column(doc="Reviewers that are wanted.")
    stratum: Mapped[str]
    weight: Mapped[float] = mapped_column(doc="Pairs of the source that it stands for.")
    pair: Mapped[str] = mapped_column(doc="Its id in the source.")
    context: Mapped[list[dict[str, str]]] = mapped_column(JSONB)
    instruction: Mapped[str]
    response_a: Mapped[str]
    response_b: Mapped[str]
    swapped: Mapped[bool]
    verdict: Mapped[str] = mapped_column(doc="The version's: A, B, tie or unparsable.")
    confidence: Mapped[float]
    orders_agree: Mapped[bool]
    against_verdict: Mapped[str | None]
    created_at: Mapped[dt.datetime] = _created()


class Review(Base):
    """An item in the hands of a reviewer: shown, then answered or skipped."""

    __tablename__ = "reviews"
    __table_args__ = (
        CheckConstraint("verdict IN ('A','B','tie')", name="reviews_verdict"),
        CheckConstraint(
            "(verdict IS NULL) = (answered_at IS NULL)", name="reviews_answered_iff_verdict"
        ),
        CheckConstraint("NOT skipped OR verdict IS NULL", name="reviews_skipped_or_answered"),
    )
    item_id: Mapped[str] = mapped_column(ForeignKey("review_items.id"), primary_key=True)
    reviewer: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[str | None] = mapped_column(doc="In the pair's own letters.")
    comment: Mapped[str | None]
    skipped: Mapped[bool] = mapped_column(server_default=text("false"))
    shown_at: Mapped[dt.datetime] = _created()
    held_until: Mapped[dt.datetime]
    answered_at: Mapped[dt.datetime | None]


class Canary(Base):
    """A version that is tried on a share of an alias's calls, until it ends."""

    __tablename__ = "canaries"
    __table_args__ = (
        CheckConstraint("mode IN ('share','shadow')", name="canaries_mode"),
        CheckConstraint("share > 0 AND share <= 1", name="canaries_share"),
        CheckConstraint("(ended_at IS NULL) = (ended_reason IS NULL)", name="canaries_ended"),
        Index(
            "canaries_active",
            "project_id",
            "model",
            "alias",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = _project()
    model: Mapped[str]
    alias: Mapped[str]
    base_id: Mapped[str] = mapped_column(
        ForeignKey("model_versions.id"), doc="What the alias named; the incumbent."
    )
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    mode: Mapped[str] = mapped_column(doc="share | shadow")
    share: Mapped[float]
    reason: Mapped[str]
    created_at: Mapped[dt.datetime] = _created()
    ended_at: Mapped[dt.datetime | None]
    ended_reason: Mapped[str | None]


class CanaryVerdict(Base):
    """What one side of a canary said of one question, the first time that it was asked."""

    __tablename__ = "canary_verdicts"
    __table_args__ = (
        CheckConstraint("arm IN ('incumbent','canary')", name="canary_verdicts_arm"),
        CheckConstraint(
            "verdict IN ('A','B','tie','unparsable','failed')", name="canary_verdicts_verdict"
        ),
    )
    canary_id: Mapped[str] = mapped_column(ForeignKey("canaries.id"), primary_key=True)
    content_sha256: Mapped[str] = mapped_column(primary_key=True, doc="Of the whole question.")
    arm: Mapped[str] = mapped_column(primary_key=True, doc="incumbent | canary")
    verdict: Mapped[str] = mapped_column(doc="A | B | tie | unparsable | failed (no answer)")
    confidence: Mapped[float | None]
    ab: Mapped[str | None] = mapped_column(doc="Verdict of order AB, in the request's letters.")
    ba: Mapped[str | None] = mapped_column(doc="Of order BA, too; null: not asked.")
    judgments: Mapped[int] = mapped_column(doc="Votes over both orders.")
    parse_failures: Mapped[int] = mapped_column(doc="Of them.")
    seconds: Mapped[float | None] = mapped_column(doc="In the engine; null: from the cache.")
    created_at: Mapped[dt.datetime] = _created()


class LoggedVerdict(Base):
    """One answer of /judge; written only where SELFTAUGHT_VERDICT_LOG asks for it."""

    __tablename__ = "verdicts"
    __table_args__ = (
        Index("verdicts_created", "created_at"),
        Index("verdicts_version", "version_id", "id"),
        Index("verdicts_content", "content_sha256", "id"),
        Index("verdicts_request", "request_id", "id"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[dt.datetime]
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    alias: Mapped[str | None] = mapped_column(doc="name:alias it came by; null: an exact version.")
    canary_id: Mapped[str | None] = mapped_column(doc="If a canary's version answered.")
    template: Mapped[str]
    template_sha256: Mapped[str]
    verdict: Mapped[str] = mapped_column(doc="A | B | tie | unparsable")
    confidence: Mapped[float]
    orders_agree: Mapped[bool | None]
    orders: Mapped[list[JSON]] = mapped_column(JSONB, doc="[{order, verdict, share}]")
    votes: Mapped[int]
    parse_failures: Mapped[int]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    cached: Mapped[bool]
    total_seconds: Mapped[float]
    queue_seconds: Mapped[float]
    engine_seconds: Mapped[float]
    content_sha256: Mapped[str] = mapped_column(doc="Of the whole question.")
    texts: Mapped[JSON | None] = mapped_column(
        doc="Null unless texts are stored: instruction or messages, response_a, response_b, "
        "reference, rubric, reasoning {order: text}."
    )
    request_id: Mapped[str | None]


class Webhook(Base):
    """An address of a project's that is told of events (selftaught/webhooks.py)."""

    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint("state IN ('enabled','disabled')", name="webhooks_state"),
        CheckConstraint(
            "(state = 'disabled') = (disabled_reason IS NOT NULL)", name="webhooks_disabled"
        ),
        CheckConstraint(
            "(old_secret IS NULL) = (old_secret_until IS NULL)", name="webhooks_old_secret"
        ),
        Index("webhooks_project", "project_id", "id"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = _project()
    url: Mapped[str]
    description: Mapped[str | None]
    events: Mapped[list[str]] = mapped_column(ARRAY(String), doc="Types, groups ('job.*') or '*'.")
    secret: Mapped[str] = mapped_column(doc="whsec_..; no route tells it but when it is made.")
    old_secret: Mapped[str | None] = mapped_column(doc="Signs, too, until old_secret_until.")
    old_secret_until: Mapped[dt.datetime | None]
    state: Mapped[str] = mapped_column(server_default="enabled")
    disabled_reason: Mapped[str | None]
    failing_since: Mapped[dt.datetime | None] = mapped_column(
        doc="First failure since the last delivery that was accepted."
    )
    created_at: Mapped[dt.datetime] = _created()


class WebhookDelivery(Base):
    """One event for one webhook, written with the event: an outbox, and the record of what came of
    it. A lease is a token, and lasts until next_at."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint(
            "state IN ('pending','delivered','failed')", name="webhook_deliveries_state"
        ),
        CheckConstraint("lock_token IS NULL OR state = 'pending'", name="webhook_deliveries_lease"),
        CheckConstraint(
            "(finished_at IS NULL) = (state = 'pending')", name="webhook_deliveries_finished"
        ),
        Index("webhook_deliveries_webhook", "webhook_id", "id"),
        Index(
            "webhook_deliveries_pending",
            "webhook_id",
            "next_at",
            "id",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "webhook_deliveries_leased",
            "webhook_id",
            postgresql_where=text("lock_token IS NOT NULL"),
        ),
        Index(
            "webhook_deliveries_finished_at",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
    )
    id: Mapped[str] = mapped_column(primary_key=True, doc="Also the webhook-id of every attempt.")
    project_id: Mapped[str] = _project()
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str]
    payload: Mapped[str] = mapped_column(doc="The body, byte for byte; it never changes.")
    state: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = mapped_column(server_default=text("0"), doc="Leases taken so far.")
    next_at: Mapped[dt.datetime] = _created()
    lock_token: Mapped[str | None]
    status: Mapped[int | None] = mapped_column(doc="HTTP status of the last attempt.")
    error: Mapped[str | None] = mapped_column(doc="Why the last attempt got no status.")
    response: Mapped[str | None] = mapped_column(doc="Beginning of the last answer.")
    created_at: Mapped[dt.datetime] = _created()
    finished_at: Mapped[dt.datetime | None]
