"""Prometheus metrics: requests as they happen, the state and the totals of the work from Postgres.

Several gateways tell the same about the work: aggregate over `instance` by max, not by sum.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import accumulate, groupby
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from selftaught import reviews, tenancy, totals
from selftaught.contracts import State
from selftaught.database import transaction
from selftaught.database.tables import (
    Chunk,
    EngineServer,
    Job,
    Outbox,
    Webhook,
    WebhookDelivery,
)
from selftaught.http import METRICS_DOCS, exposition
from selftaught.work.planning import QUEUES

logger = logging.getLogger(__name__)
router = APIRouter(tags=["operations"])

_SERVERS = ("starting", "ready", "draining", "failed")
_OUTCOMES = ("succeeded", "retried", "returned", "failed")
_DECISIONS = ("promoted", "refused", "forced")


@router.get("/metrics", response_class=Response, responses=METRICS_DOCS)
def metrics(request: Request) -> Response:
    """For Prometheus to scrape."""
    return exposition(request.app.state.registry)


class WorkCollector(Collector):
    """The work, as Postgres has it at each scrape."""

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("selftaught_database_up", "Whether the work could be counted.")
        try:
            with transaction() as session:
                found = [*_gauges(session), *_counters(session)]
                reviewed = reviews.reviewed_models(session)
            found += _reviews(reviewed)
        except SQLAlchemyError:
            logger.exception("the work could not be counted for a scrape")
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from found


def _age(since: ColumnElement[Any]) -> ColumnElement[Any]:
    """Seconds since then, by Postgres's clock; 0 for never."""
    return func.coalesce(func.extract("epoch", func.clock_timestamp() - since), 0.0)


def _gauges(session: Session) -> list[Metric]:
    jobs = GaugeMetricFamily("selftaught_jobs", "Jobs by state.", labels=["state"])
    by_state = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
    for state in State:
        jobs.add_metric([state], by_state.get(state, 0))
    servers = GaugeMetricFamily(
        "selftaught_engine_servers", "vLLM servers by state.", labels=["state"]
    )
    of_state = select(EngineServer.state, func.count()).group_by(EngineServer.state)
    found = dict(session.execute(of_state).all())
    for name in _SERVERS:
        servers.add_metric([name], found.get(name, 0))
    unsent = GaugeMetricFamily(
        "selftaught_outbox_age_seconds",
        "How long the oldest message that is due has not been sent: is the relay there?",
    )
    oldest = func.min(Outbox.created_at)
    unsent.add_metric([], max(0.0, session.scalar(select(_age(oldest))) or 0.0))
    return [jobs, servers, unsent, *_queues(session), _webhooks(session)]


def _queues(session: Session) -> list[Metric]:
    ready = GaugeMetricFamily(
        "selftaught_ready_chunks", "Chunks that wait for a worker.", labels=["queue"]
    )
    oldest = GaugeMetricFamily(
        "selftaught_oldest_ready_chunk_seconds",
        "How long ago the one that waits longest was announced to the workers.",
        labels=["queue"],
    )
    running = GaugeMetricFamily(
        "selftaught_running_chunks", "Chunks that a worker holds.", labels=["queue"]
    )
    overdue = GaugeMetricFamily(
        "selftaught_overdue_leases",
        "Leases that have run out and are not yet taken back: is the relay there?",
        labels=["queue"],
    )
    now = func.clock_timestamp()
    waits = select(Chunk.queue, func.count()).join(Job, Job.id == Chunk.job_id)
    waits = waits.where(Chunk.state == State.READY, Job.state == State.RUNNING)
    waiting = dict(session.execute(waits.group_by(Chunk.queue)).all())
    announced = waits.where(~exists().where(Outbox.chunk_id == Chunk.id))
    announced = announced.with_only_columns(Chunk.queue, _age(func.min(Chunk.rung_at)))
    ages = dict(session.execute(announced.group_by(Chunk.queue)).all())
    lost = func.count().filter(Chunk.lock_expires_at < now)
    held = select(Chunk.queue, func.count(), lost).where(Chunk.state == State.RUNNING)
    holders = {name: rest for name, *rest in session.execute(held.group_by(Chunk.queue))}
    for queue in sorted(set(QUEUES.values())):
        ready.add_metric([queue], waiting.get(queue, 0))
        oldest.add_metric([queue], max(0.0, float(ages.get(queue, 0))))
        running.add_metric([queue], holders.get(queue, (0, 0))[0])
        overdue.add_metric([queue], holders.get(queue, (0, 0))[1])
    return [ready, oldest, running, overdue]


def _webhooks(session: Session) -> Metric:
    late = GaugeMetricFamily(
        "selftaught_webhooks_late_seconds",
        "How long the delivery that is due longest has been due: is the process webhooks there?",
    )
    seconds = session.scalar(
        select(_age(func.min(WebhookDelivery.next_at)))
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(WebhookDelivery.state == "pending", Webhook.state == "enabled")
    )
    late.add_metric([], max(0.0, float(seconds or 0)))
    return late


def _counters(session: Session) -> list[Metric]:
    """What selftaught/totals.py has; 0 of what was not yet, for a rate to begin with."""
    found = totals.read(session)

    def counter(
        total: str, name: str, told: str, label: str = "", parts: tuple[str, ...] = ("",)
    ) -> Metric:
        family = CounterMetricFamily(name, told, labels=["stage", *filter(None, [label])])
        for stage in QUEUES:
            for part in parts:
                family.add_metric(
                    [stage, *filter(None, [part])], found.get((total, stage, part), 0.0)
                )
        return family

    promotions = CounterMetricFamily(
        "selftaught_promotions", "What gates decided.", labels=["decision"]
    )
    for decision in _DECISIONS:
        promotions.add_metric([decision], found.get(("promotions", "", decision), 0.0))
    return [
        counter("chunks", "selftaught_chunks", "How leases ended.", "outcome", _OUTCOMES),
        counter("lease_expiries", "selftaught_lease_expiries", "Leases that ran out."),
        counter(
            "tokens",
            "selftaught_engine_tokens",
            "Tokens that models read (prompt) and wrote (completion), of applied results.",
            "kind",
            ("prompt", "completion"),
        ),
        counter(
            "parse_failures",
            "selftaught_parse_failures",
            "Answers of models in which what was asked for is not found.",
        ),
        counter(
            "device_seconds", "selftaught_device_seconds", "Seconds that GPUs were held to train."
        ),
        promotions,
        _seconds(found),
    ]


def _seconds(found: dict[totals.Key, float]) -> Metric:
    family = HistogramMetricFamily(
        "selftaught_stage_seconds",
        "How long workers held the chunks of a stage whose results were applied.",
        labels=["stage"],
    )
    bounds = [*map(str, totals.BUCKETS), "+Inf"]
    for stage in QUEUES:
        counted = accumulate(found.get(("seconds", stage, bound), 0.0) for bound in bounds)
        total = found.get(("seconds", stage, "sum"), 0.0)
        family.add_metric([stage], list(zip(bounds, counted, strict=True)), total)
    return family


def _reviews(reviewed: list[tuple[str, str]]) -> list[Metric]:
    """Of each project's models: another project may have one of the same name."""
    agreement = GaugeMetricFamily(
        "selftaught_review_agreement",
        "Share of a source's pairs on which the newest reviewed version agrees with people.",
        labels=["project", "model", "version"],
    )
    drift = GaugeMetricFamily(
        "selftaught_review_drift",
        "Whether that has fallen: 0 ok, 1 watch, 2 alarm.",
        labels=["project", "model"],
    )
    for project, models in groupby(reviewed, key=lambda one: one[0]):
        with tenancy.inside(project), transaction() as session:
            for _, model in models:
                standing = reviews.standing(session, model)
                if standing is not None:
                    version, share, state = standing
                    labels = [project, model, str(version.number)]
                    agreement.add_metric(labels, share.agreement or 0.0)
                    drift.add_metric([project, model], reviews.STATES.index(state))
    return [agreement, drift]
