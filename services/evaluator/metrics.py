"""What the judge service counts by itself: its calls come and go without Postgres."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram

from selftaught.contracts import Latency
from selftaught.inference import Completion

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
LIVE = "live"
"""The `stage` of these calls, beside those of jobs that the gateway tells."""


class Counted:
    """Counters and histograms of one replica."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._verdicts = Counter(
            "selftaught_verdicts", "Verdicts given.", ["verdict"], registry=registry
        )
        self._seconds = Histogram(
            "selftaught_judge_seconds",
            "Time of calls that were answered: in all, waiting for the engine, and in it.",
            ["call", "part"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "selftaught_parse_failures",
            "Answers of models in which what was asked for is not found.",
            ["stage"],
            registry=registry,
        )
        self._tokens = Counter(
            "selftaught_engine_tokens",
            "Tokens that models read (prompt) and wrote (completion).",
            ["stage", "kind"],
            registry=registry,
        )
        self._lookups = Counter(
            "selftaught_judge_cache_lookups",
            "Questions that were looked for among former answers: hit or miss.",
            ["outcome"],
            registry=registry,
        )
        self._failures.labels(LIVE)
        for kind in ("prompt", "completion"):
            self._tokens.labels(LIVE, kind)
        for outcome in ("hit", "miss"):
            self._lookups.labels(outcome)

    @contextmanager
    def timed(self, call: str) -> Iterator[None]:
        """A call, if it is answered."""
        began = time.perf_counter()
        yield
        self._seconds.labels(call, "total").observe(time.perf_counter() - began)

    def parts(self, call: str, latency: Latency) -> None:
        """Where the time of a call went that was not answered from the cache."""
        self._seconds.labels(call, "queue").observe(latency.queue)
        self._seconds.labels(call, "engine").observe(latency.engine)

    def verdict(self, verdict: str) -> None:
        """A verdict was given."""
        self._verdicts.labels(verdict).inc()

    def unread(self, answers: int) -> None:
        """So many answers had no readable verdict or score."""
        self._failures.labels(LIVE).inc(answers)

    def looked_up(self, hit: bool) -> None:
        """A question was looked for among former answers."""
        self._lookups.labels("hit" if hit else "miss").inc()

    def spent(self, completions: Sequence[Sequence[Completion]]) -> int:
        """Count what an engine was asked, each prompt once; returns the tokens."""
        read = sum(votes[0].prompt_tokens for votes in completions)
        written = sum(vote.completion_tokens for votes in completions for vote in votes)
        self._tokens.labels(LIVE, "prompt").inc(read)
        self._tokens.labels(LIVE, "completion").inc(written)
        return read + written
