"""Which version answers a call of /judge, and what is remembered of it: canaries and the log.

A canary's share of questions is chosen by a hash of what is asked, so that the same question always
goes the same way, in every replica. A canary harms nobody: one that fails to answer leaves the call
to the version that the alias names, and a shadow judges after the answer has been given.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
import time
from collections import Counter as Counts
from collections.abc import Callable
from typing import Any, Protocol

from prometheus_client import Counter

from selftaught.contracts import JudgeIn, JudgeOut
from selftaught.database.tables import CanaryVerdict, LoggedVerdict
from selftaught.hashing import canonical_sha256
from selftaught.settings import get_settings
from services.evaluator.live import Live
from services.evaluator.lookup import Named, Trial
from services.evaluator.recorder import Recorder, Row

logger = logging.getLogger(__name__)

SHADOWS = 8
"""Shadow judgments of one replica in flight; what comes meanwhile is not compared."""
SHADOW_SECONDS = 120.0
MOST = 100_000
"""Questions of one canary and side that a replica writes down: more would not change the report."""
_HOW = {"model", "explain", "timeout_seconds", "cache", "stream"}
"""Fields that do not change what is asked."""


class Rule(Protocol):
    """Asks a version."""

    async def __call__(
        self, version_id: str, question: JudgeIn, started: float, live: Live | None
    ) -> JudgeOut: ...


class Traffic:
    """`rule` judges by a version; `busy`: are there so many calls that no shadow should begin?"""

    def __init__(self, rule: Rule, busy: Callable[[], bool], recorder: Recorder) -> None:
        self.shadows = Counter(
            "selftaught_shadow_judgments",
            "Shadow judgments: done, failed, or skipped because there was no room.",
            ["outcome"],
            registry=None,
        )
        self._rule, self._busy, self._recorder = rule, busy, recorder
        self._tasks: set[asyncio.Task[None]] = set()
        self._written: Counts[tuple[str, str]] = Counts()

    async def judge(
        self,
        question: JudgeIn,
        named: Named,
        request_id: str | None,
        started: float,
        live: Live | None = None,
    ) -> JudgeOut:
        """The answer, by the version that `named` and its canary give; raises what `rule` does."""
        log, trial = get_settings().verdict_log, named.trial
        if log == "off" and trial is None:
            return await self._rule(named.version_id, question, started, live)
        content = question.model_dump(mode="json", exclude=_HOW, exclude_none=True)
        sha256 = canonical_sha256(content)
        asked = question.model_copy(update={"explain": True}) if log == "texts" else question
        chosen = trial if trial is not None and portion(trial.id, sha256) < trial.share else None
        version_id, out = named.version_id, None
        if chosen is not None and chosen.mode == "share":
            out = await self._try(chosen, sha256, asked, started, live)
        if out is not None and chosen is not None:
            version_id = chosen.version_id
        else:
            out = await self._rule(named.version_id, asked, started, live)
        if trial is not None and trial.mode == "share":
            arm = "canary" if out.canary else "incumbent"
            self._note(trial, _said(trial, sha256, arm, question, out))
        elif chosen is not None:
            self._shadow(chosen, sha256, question, out)
        if log != "off" and portion("log", out.id) < get_settings().verdict_log_sample:
            row = _logged(out, question.votes, version_id, named, sha256, request_id)
            if log == "texts":
                row["texts"] = _storable(content | {"reasoning": _reasoning(out)})
            self._recorder.put(LoggedVerdict, row)
        if not question.explain:
            for order in out.orders:
                order.reasoning = None
        return out

    async def close(self) -> None:
        """Shadow judgments that have not ended are dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _try(
        self, trial: Trial, sha256: str, question: JudgeIn, started: float, live: Live | None
    ) -> JudgeOut | None:
        """The canary's answer; None if it fails, or leaves less than half of the call's time."""
        try:
            async with asyncio.timeout(question.timeout_seconds / 2):
                out = await self._rule(trial.version_id, question, started, live)
        except Exception as error:  # noqa: BLE001 the alias's version answers; it is counted
            logger.warning("canary %s did not answer: %s: %s", trial.id, type(error), error)
            self._note(trial, _said(trial, sha256, "canary", question, None))
            return None
        out.canary = True
        return out

    def _shadow(self, trial: Trial, sha256: str, question: JudgeIn, out: JudgeOut) -> None:
        """Have the canary judge what has just been answered, if there is room."""
        if len(self._tasks) >= SHADOWS or self._busy() or self._written[trial.id, "canary"] >= MOST:
            self.shadows.labels("skipped").inc()
            return
        answered = _said(trial, sha256, "incumbent", question, out)
        task = asyncio.create_task(self._judge_unseen(trial, sha256, question, answered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _judge_unseen(
        self, trial: Trial, sha256: str, question: JudgeIn, answered: Row
    ) -> None:
        out, outcome = None, "done"
        try:
            async with asyncio.timeout(SHADOW_SECONDS):
                out = await self._rule(trial.version_id, question, time.perf_counter(), None)
        except Exception as error:  # noqa: BLE001 nobody waits for it; it is counted and reported
            logger.warning("shadow of canary %s failed: %s: %s", trial.id, type(error), error)
            outcome = "failed"
        self.shadows.labels(outcome).inc()
        self._note(trial, answered)
        self._note(trial, _said(trial, sha256, "canary", question, out))

    def _note(self, trial: Trial, row: Row) -> None:
        if self._written[trial.id, row["arm"]] < MOST:
            self._written[trial.id, row["arm"]] += 1
            self._recorder.put(CanaryVerdict, row)


def portion(*parts: str) -> float:
    """A number in [0, 1) that follows from the parts, evenly spread."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _said(trial: Trial, sha256: str, arm: str, question: JudgeIn, out: JudgeOut | None) -> Row:
    """The row of what a side said; None: it failed."""
    row: Row = {"canary_id": trial.id, "content_sha256": sha256, "arm": arm}
    if out is None:
        missing = dict.fromkeys(("confidence", "ab", "ba", "seconds"))
        return row | {"verdict": "failed", "judgments": 0, "parse_failures": 0, **missing}
    orders = {order.order: order.verdict for order in out.orders}
    return row | {
        "verdict": out.verdict,
        "confidence": out.confidence,
        "ab": orders.get("AB"),
        "ba": orders.get("BA"),
        "judgments": question.votes * len(orders),
        "parse_failures": out.parse_failures,
        "seconds": None if out.cached else out.latency.engine,
    }


def _logged(
    out: JudgeOut, votes: int, version_id: str, named: Named, sha256: str, request_id: str | None
) -> Row:
    same = (
        "id", "template", "template_sha256", "verdict", "confidence", "orders_agree",
        "parse_failures", "prompt_tokens", "completion_tokens", "cached",
    )  # fmt: skip
    return {
        **{name: getattr(out, name) for name in same},
        "created_at": dt.datetime.now(dt.UTC),
        "version_id": version_id,
        "alias": named.alias,
        "canary_id": named.trial.id if named.trial is not None and out.canary else None,
        "orders": [order.model_dump(exclude={"reasoning"}) for order in out.orders],
        "votes": votes,
        "total_seconds": out.latency.total,
        "queue_seconds": out.latency.queue,
        "engine_seconds": out.latency.engine,
        "content_sha256": sha256,
        "texts": None,
        "request_id": request_id,
    }


def _reasoning(out: JudgeOut) -> dict[str, str | None]:
    return {order.order: order.reasoning for order in out.orders}


def _storable(value: Any) -> Any:
    """The same without what Postgres cannot hold: NUL characters and halves of surrogate pairs."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, dict):
        return {key: _storable(part) for key, part in value.items()}
    return [_storable(part) for part in value] if isinstance(value, list) else value
