"""What a canary and the version beside it said, counted in Postgres."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from selftaught.agreement import agreement, cohen_kappa
from selftaught.contracts import CanaryAgreement, CanaryArm, CanaryOut, CanaryReport
from selftaught.judging.scoring import wilson

VERDICTS = ("A", "B", "tie", "unparsable")

# ab and ba are in the request's letters; in BA the responses were shown swapped, so there B stood
# first.
_ARMS = text(
    """
    SELECT arm, verdict, count(*) AS n, sum(confidence) AS confidence,
        sum(judgments) AS judgments, sum(parse_failures) AS parse_failures,
        count(*) FILTER (WHERE ba IS NOT NULL AND ab = 'A')
            + count(*) FILTER (WHERE ba = 'B') AS first,
        count(*) FILTER (WHERE ba IS NOT NULL AND ab = 'B')
            + count(*) FILTER (WHERE ba = 'A') AS second,
        count(*) FILTER (WHERE ba IS NOT NULL) AS both_orders,
        count(*) FILTER (WHERE ab <> ba AND 'unparsable' NOT IN (ab, ba)) AS disagreed
    FROM canary_verdicts WHERE canary_id = :id GROUP BY arm, verdict
    """
)
_SECONDS = text(
    """
    SELECT arm, percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY seconds) AS seconds
    FROM canary_verdicts WHERE canary_id = :id AND seconds IS NOT NULL GROUP BY arm
    """
)
_PAIRS = text(
    """
    SELECT i.verdict, c.verdict, count(*)
    FROM canary_verdicts i JOIN canary_verdicts c USING (canary_id, content_sha256)
    WHERE canary_id = :id AND i.arm = 'incumbent' AND c.arm = 'canary'
        AND 'failed' NOT IN (i.verdict, c.verdict)
    GROUP BY 1, 2
    """
)


def canary(session: Session, canary_id: str, out: CanaryOut) -> CanaryReport:
    """The report of a canary; `out` is its contract."""
    where = {"id": canary_id}
    rows = session.execute(_ARMS, where).mappings().all()
    seconds = {row.arm: row.seconds for row in session.execute(_SECONDS, where)}
    table = {(one, other): n for one, other, n in session.execute(_PAIRS, where)}
    n = sum(table.values())
    interval = wilson(sum(count for (one, other), count in table.items() if one == other), n)
    kappa = cohen_kappa(table)
    return CanaryReport(
        canary=out,
        agreement=CanaryAgreement(
            n=n,
            agreement=agreement(table),
            ci95=(interval[0], interval[1]) if interval else None,
            kappa=kappa.value if kappa else None,
            kappa_ci95=(kappa.low, kappa.high) if kappa else None,
            confusion={
                one: {other: table.get((one, other), 0) for other in VERDICTS} for one in VERDICTS
            },
        ),
        arms={
            "incumbent": _arm([row for row in rows if row["arm"] == "incumbent"], seconds),
            "canary": _arm([row for row in rows if row["arm"] == "canary"], seconds),
        },
    )


def _arm(rows: list[Any], seconds: dict[str, list[float]]) -> CanaryArm:
    verdicts = dict.fromkeys((*VERDICTS, "failed"), 0) | {row["verdict"]: row["n"] for row in rows}
    n = sum(verdicts.values())
    answered = n - verdicts["failed"]

    def total(name: str) -> int:
        return sum(row[name] for row in rows)

    first, second = total("first"), total("second")
    said = [row["confidence"] for row in rows if row["verdict"] != "failed"]
    p50, p95 = seconds.get(rows[0]["arm"] if rows else "", (None, None))
    return CanaryArm(
        n=n,
        verdicts=verdicts,
        tie_share=_rate(verdicts["tie"], answered),
        parse_failure_rate=_rate(total("parse_failures"), total("judgments")),
        position_bias=_rate(first - second, first + second),
        order_disagreement=_rate(total("disagreed"), total("both_orders")),
        mean_confidence=_rate(sum(said), answered),
        seconds_p50=p50,
        seconds_p95=p95,
    )


def _rate(part: float, whole: int) -> float | None:
    return part / whole if whole else None
