"""Two projects that have one of everything each, under the same names where names are free."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from selftaught import aliases, keys, tenancy
from selftaught.artifacts import publish_rows
from selftaught.contracts import Recipe, Scope
from selftaught.database import transaction
from selftaught.database.tables import (
    Artifact,
    Audit,
    Canary,
    CanaryVerdict,
    Chunk,
    Dataset,
    DeletedVersion,
    Evaluation,
    Event,
    IdempotencyKey,
    Iteration,
    Job,
    LoggedVerdict,
    ModelVersion,
    Project,
    Promotion,
    Review,
    ReviewItem,
    Stage,
    StoredTemplate,
    Usage,
    Webhook,
    WebhookDelivery,
)
from selftaught.judging import parse_template

NOW = dt.datetime(2026, 11, 27, 9, tzinfo=dt.UTC)
MARK = "crimson"
"""Stands in every text of the project `red`, and in nothing of others."""
Names = dict[str, str]
"""Placeholder -> what it stands for, in paths and bodies of `<placeholder>`."""


@dataclass
class Tenant:
    """A project with one of everything; `secrets`: of a key for each set of scopes."""

    project: str
    word: str
    own: Names
    secrets: dict[frozenset[str], str] = field(default_factory=dict)

    def headers(self, *scopes: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secrets[frozenset(scopes)]}"}


def names(short: str, word: str, number: int) -> Names:
    """Ids and names of a tenant. Those of one that never was are made in the same way."""
    ids = {
        kind: f"{prefix}_{short}"
        for kind, prefix in {
            "dataset": "ds1",
            "labelled": "ds2",
            "job": "job1",
            "running": "job2",
            "iteration": "it1",
            "evaluation": "eval1",
            "other_evaluation": "eval2",
            "review_job": "review1",
            "item": "item1",
            "batch": "batch1",
            "canary": "can1",
            "ended_canary": "can0",
            "verdict": "vdt1",
            "promotion": "pro1",
            "key": "key1",
            "webhook": "whk1",
            "delivery": "msg1",
            "project": "prj",
        }.items()
    }
    return {
        **ids,
        "model": f"{word}-model",
        "alias": f"{word}-alias",
        "template": f"{word}-template",
        "score_template": f"{word}-score",
        "reviewer": f"{word}-reviewer",
        "key_name": f"{word}-key",
        "request": f"{word}-request",
        "audit": f"aud1_{short}",
        "tenant": short,
        "content": hashlib.sha256(word.encode()).hexdigest(),
        "number": str(number),
    }


def make(project: str, short: str, word: str, number: int, combinations: Any) -> Tenant:
    """A project with one of everything, and keys with these combinations of scopes."""
    tenant = Tenant(project, word, names(short, word, number))
    with transaction() as session:
        session.execute(
            text("INSERT INTO projects (id) VALUES (:id) ON CONFLICT DO NOTHING"), {"id": project}
        )
        session.add(
            Audit(
                id=f"aud1_{short}", project_id=project, method="POST", route="/v1/jobs",
                path=f"/v1/jobs?{word}", request_id=word,
            )
        )  # fmt: skip
    with tenancy.inside(project):
        files = _files(tenant)
        with transaction() as session:
            _furnish(session, tenant, files)
            for scopes in combinations:
                tenant.secrets[frozenset(scopes)] = make_key(session, scopes)
            key = keys.create(session, tenant.own["key_name"], ["read"])[0]
            session.flush()
            session.execute(
                text("UPDATE api_keys SET id = :new WHERE id = :old"),
                {"new": tenant.own["key"], "old": key.id},
            )
    return tenant


def make_key(session: Session, scopes: Any, **options: Any) -> str:
    wanted: list[Scope] = sorted(scopes)
    return keys.create(session, "key of " + "+".join(wanted), wanted, **options)[1]


def _files(tenant: Tenant) -> dict[str, str]:
    """Publishes a file for each purpose; returns the ids of their artifacts."""
    own, word = tenant.own, tenant.word
    said = {"id": "1", "instruction": word}
    labelled = {**said, "chosen": "a", "rejected": "b"}
    points = {"scoring": "strict", "example": word, "points": 1.0}
    judged = {"order": "AB", "at": [0, 0], "verdicts": ["A"], "fates": ["kept"], "preferences": []}
    fate = {"id": "1", "outcomes": ["kept"], "pair": [0, 0], "orders": [judged]}
    said_of = {"verdict": "A", "text": word, "finish_reason": "stop", "completion_tokens": 1}
    verdict = {"custom_id": word, "line": 1, "verdict": "A"}
    rows: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "dataset": (f"datasets/{own['dataset']}.jsonl", [said] * 9),
        "labelled": (f"datasets/{own['labelled']}.jsonl", [labelled] * 2),
        "select": (f"jobs/{own['job']}/0/select/s.0.t.jsonl", [said]),
        "fates": (f"jobs/{own['job']}/0/fates/c.0.t.jsonl", [fate]),
        "pair": (f"jobs/{own['job']}/0/pair/p.0.t.jsonl", [labelled]),
        "judge": (f"jobs/{own['job']}/0/judge/j.0.t.jsonl", [said_of]),
        "score": (f"jobs/{own['evaluation']}/0/score/s.0.t.jsonl", [points]),
        "results": (f"batches/{own['batch']}.r.jsonl", [verdict]),
    }
    found = {}
    with transaction() as session:
        for name, (path, lines) in rows.items():
            made = publish_rows(name, path, lines)
            found[name] = f"art_{name}_{tenant.project}"
            session.add(Artifact(id=found[name], **asdict(made)))
    return found


def _furnish(session: Session, tenant: Tenant, files: dict[str, str]) -> None:
    own, word = tenant.own, tenant.word
    for kind, of in (("dataset", "instructions"), ("labelled", "labelled")):
        session.add(Dataset(id=own[kind], name=word, kind=of, artifact_id=files[kind]))
    session.flush()
    recipe = Recipe.model_validate({"name": word}).model_dump(mode="json", by_alias=True)
    _job(session, own["job"], "loop", "succeeded", recipe, dataset_id=own["dataset"])
    _job(session, own["running"], "loop", "running", recipe, dataset_id=own["dataset"])
    _templates(session, tenant)
    versions = _versions(session, tenant)
    _stage(session, own["job"], own["iteration"], "select", "succeeded", files["select"])
    _stage(session, own["running"], f"{own['iteration']}b", "select", "ready", None)
    for seq in (1, 2):
        session.add(Event(job_id=own["job"], seq=seq, type=f"{word}.event", data={"n": seq}))
    _traffic(session, tenant, versions)
    _evaluations(session, tenant, versions, files)
    _reviews(session, tenant, versions)
    _webhooks(session, tenant)
    session.add(Usage(day=NOW.date(), tokens=int(own["number"])))
    session.add(IdempotencyKey(key=own["request"], token=word))
    gone = f"ver_{tenant.project}_gone"
    session.add(DeletedVersion(id=gone, model="tour", number=int(own["number"]) + 1, sha256=word))
    batch = {
        "name": "batch", "version": versions[0].id, "ref": versions[0].ref, "template": "mt-bench",
        "template_sha256": "0", "votes": 1, "both_orders": True, "allow_tie": True,
        "explain": False, "lines": 1,
    }  # fmt: skip
    _job(session, own["batch"], "batch", "succeeded", batch)
    _stage(
        session, own["batch"], f"{own['iteration']}c", "judge_batch", "succeeded", files["results"]
    )


def _job(
    session: Session, id_: str, kind: str, state: str, recipe: dict[str, Any], **more: Any
) -> None:
    # A job's event numbers begin behind those that a tenant's events have.
    row = Job(id=id_, kind=kind, state=state, model="tour", recipe=recipe, event_seq=2, **more)
    row.created_at = row.started_at = NOW
    session.add(row)
    session.flush()


def _stage(
    session: Session, job: str, iteration: str, kind: str, state: str, artifact: str | None
) -> None:
    """An iteration 0 with one stage of one chunk."""
    rest = "succeeded" if state == "succeeded" else "running"
    session.add(Iteration(id=iteration, job_id=job, number=0, state=rest))
    session.flush()
    stage = Stage(
        id=f"st_{iteration}", job_id=job, iteration_id=iteration, kind=kind, position=0,
        state=rest, chunks=1, chunks_done=int(state == "succeeded"),
    )  # fmt: skip
    session.add(stage)
    session.flush()
    session.add(
        Chunk(
            id=f"st_{iteration}.0", job_id=job, stage_id=stage.id, position=0, kind=kind,
            queue="generator", state=state, artifact_id=artifact, input={"last": 1, "limit": 1},
        )
    )  # fmt: skip


def _templates(session: Session, tenant: Tenant) -> None:
    for kind, user, more in (
        ("template", "{instruction} {response_a} {response_b}", {"verdicts": {"A": "1", "B": "2"}}),
        ("score_template", "{instruction} {response}", {}),
    ):
        of = "judge" if kind == "template" else "score"
        content = {"name": tenant.own[kind], "kind": of, "user": f"{tenant.word} {user}", **more}
        parsed = parse_template(content)
        session.add(
            StoredTemplate(
                name=parsed.name, kind=of, sha256=parsed.sha256,
                content=parsed.model_dump(mode="json"),
            )
        )  # fmt: skip


def _versions(session: Session, tenant: Tenant) -> list[ModelVersion]:
    """tour:0, tour:1 and one of the tenant's own number, and a model of the tenant's own name."""
    own, found = tenant.own, []
    for model, number in (
        ("tour", 0),
        ("tour", 1),
        ("tour", int(own["number"])),
        (own["model"], 0),
    ):
        lineage = {
            "template": {"name": "mt-bench", "sha256": "0"}, "inference": "local", "seed": 0,
            "judge_max_tokens": 77, "judge_sampling": {"temperature": 0.5, "max_tokens": 9},
            "note": tenant.word,
        }  # fmt: skip
        row = ModelVersion(
            id=f"ver_{tenant.project}_{model}_{number}", model=model, number=number, path="x",
            sha256="x", lineage=lineage, job_id=own["job"],
        )  # fmt: skip
        session.add(row)
        session.flush()
        found.append(row)
    for alias in ("latest", own["alias"]):
        for number in (0, 1):
            aliases.move(session, "tour", alias, number, f"{tenant.word} moves it")
    aliases.move(session, own["model"], "latest", 0, tenant.word)
    return found


def _traffic(session: Session, tenant: Tenant, versions: list[ModelVersion]) -> None:
    own, word = tenant.own, tenant.word
    for kind, alias, ended in (("canary", own["alias"], None), ("ended_canary", "latest", NOW)):
        session.add(
            Canary(
                id=own[kind], model="tour", alias=alias, base_id=versions[1].id,
                version_id=versions[0].id, mode="shadow", share=0.5, reason=word,
                ended_at=ended, ended_reason=None if ended is None else word,
            )
        )  # fmt: skip
    session.flush()
    for arm in ("incumbent", "canary"):
        session.add(
            CanaryVerdict(
                canary_id=own["canary"], content_sha256=own["content"], arm=arm, verdict="A",
                confidence=0.9, ab="A", ba="A", judgments=2, parse_failures=0, seconds=0.1,
            )
        )  # fmt: skip
    session.add(
        LoggedVerdict(
            id=own["verdict"], created_at=NOW, version_id=versions[1].id, alias="tour:latest",
            template="mt-bench", template_sha256="0", verdict="A", confidence=0.9,
            orders_agree=True, orders=[], votes=1, parse_failures=0, prompt_tokens=1,
            completion_tokens=1, cached=False, total_seconds=0.1, queue_seconds=0.0,
            engine_seconds=0.1, content_sha256=own["content"], request_id=own["request"],
            texts={"instruction": word, "response_a": "a", "response_b": "b"},
        )
    )  # fmt: skip


def _evaluations(
    session: Session, tenant: Tenant, versions: list[ModelVersion], files: dict[str, str]
) -> None:
    own = tenant.own
    for version, accuracy in zip(versions[:3], (0.6, 0.7, 0.9), strict=True):
        session.add(
            Evaluation(
                id=f"ev_{version.id}", version_id=version.id, job_id=own["job"], set="heldout",
                metrics={
                    "strict_accuracy": accuracy, "position_bias": 0.0, "parse_failures": 0.0,
                },
            )
        )  # fmt: skip
    settings = {
        "name": "evaluation", "version": versions[0].id, "ref": versions[0].ref,
        "benchmark": "pairs", "labelled": True, "dataset_sha256": "0", "scoring": ["strict"],
        "template": "mt-bench", "template_sha256": "0", "votes": 1, "seed": 0, "limit": None,
        "max_tokens": 9,
    }  # fmt: skip
    for kind, file in (("evaluation", files["score"]), ("other_evaluation", None)):
        _job(session, own[kind], "evaluation", "succeeded", settings, dataset_id=own["labelled"])
        _stage(session, own[kind], f"{own['iteration']}{kind}", "score", "succeeded", file)
    session.add(
        Promotion(
            id=own["promotion"], version_id=versions[1].id, alias="latest",
            incumbent_id=versions[0].id, promoted=True, forced=True, findings=[],
            reason=tenant.word, job_id=own["job"], key_id=None, key_name=own["key_name"],
        )
    )  # fmt: skip


def _reviews(session: Session, tenant: Tenant, versions: list[ModelVersion]) -> None:
    own, word = tenant.own, tenant.word
    _job(session, own["review_job"], "review", "succeeded", {"name": "review", "x": word})
    for item, position in ((own["item"], 0), (f"{own['item']}b", 1)):
        session.add(
            ReviewItem(
                id=item, job_id=own["review_job"], version_id=versions[1].id,
                against_id=versions[0].id, position=position, overlap=1, stratum="random",
                weight=1.0, pair=word, context=[], instruction=word, response_a="a",
                response_b="b", swapped=False, verdict="A", confidence=0.9, orders_agree=True,
                against_verdict="B",
            )
        )  # fmt: skip
    session.flush()
    held = {"reviewer": own["reviewer"], "held_until": NOW, "shown_at": NOW}
    session.add(
        Review(item_id=f"{own['item']}b", verdict="A", comment=word, answered_at=NOW, **held)
    )
    session.add(Review(item_id=own["item"], **held))


def _webhooks(session: Session, tenant: Tenant) -> None:
    """One that is disabled, so that nothing is sent, with a delivery that failed."""
    own, word = tenant.own, tenant.word
    session.add(
        Webhook(
            id=own["webhook"], url=f"https://{word}.example/", description=word, events=["*"],
            secret=f"whsec_{word}", state="disabled", disabled_reason=word,
        )
    )  # fmt: skip
    session.flush()
    session.add(
        WebhookDelivery(
            id=own["delivery"], webhook_id=own["webhook"], type="job.failed", state="failed",
            payload=json.dumps({"data": word}), finished_at=NOW,
        )
    )  # fmt: skip


def rows_of(project: str | None) -> dict[str, str]:
    """Table -> a hash of all its rows that a project can see; None: of everybody's.

    Without what using a key writes, without the work's messages, and without the record of who
    asked for what.
    """
    with transaction() as session:
        tables = session.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        ).all()
    shown = [one for one in tables if one not in ("alembic_version", "secrets", "outbox", "audit")]
    parts = [
        f"SELECT '{one}', md5(coalesce(string_agg(r, '|' ORDER BY r), '')) FROM "
        f"(SELECT (to_jsonb(t) - 'last_used_at')::text AS r FROM {one} t) AS x"
        for one in shown
    ]
    with tenancy.inside(project), transaction() as session:
        return dict(session.execute(text(" UNION ALL ".join(parts))).all())  # type: ignore[arg-type]


__all__ = ["MARK", "Project", "Tenant", "make", "make_key", "names", "rows_of"]
