"""Labels instructions by category, complexity and expected length, and chooses by these labels.

The seed model labels every selected row; a reply that cannot be read is asked for again, by itself.
Source: Wang et al. 2024, arXiv 2408.02666, section 4.1, where one category is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from selftaught.contracts import LabelSettings, QuotaSettings
from selftaught.hashing import stable_seed
from selftaught.inference import Dialogue, Engine, Request
from selftaught.jsonl import Row
from selftaught.judging import LabelTemplate, in_context


@dataclass
class Labelled:
    """What a chunk became.

    `rows`: as given, with category, complexity (1 to 5) and length. `dropped`: {id, reason:
    unlabelled}. `counts`: labelled, dropped_unlabelled, retried (requests), prompt_tokens,
    completion_tokens.
    """

    rows: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def label_rows(
    instructions: Sequence[Row],
    engine: Engine,
    template: LabelTemplate,
    settings: LabelSettings,
    seed: int,
) -> Labelled:
    """Label rows {id, instruction, context?, ..}; random numbers depend on (seed, id) only."""
    result = Labelled()
    labels: dict[str, dict[str, Any]] = {}

    def label(row: Row) -> Dialogue:
        """Asked again, as the next sample, until the reply can be read."""
        messages = template.render(in_context(row["instruction"], row.get("context")))
        seed_ = stable_seed(seed, "label", row["id"])
        for attempt in range(1 + settings.retries):
            if attempt:
                result.counts["retried"] += 1
            (reply,) = yield Request(messages, seed_, first=attempt), settings.sampling
            result.counts["prompt_tokens"] += reply.prompt_tokens
            result.counts["completion_tokens"] += reply.completion_tokens
            found = template.read(reply.text) if reply.finished else None
            if found is not None:
                labels[row["id"]] = asdict(found)
                return

    engine.converse(map(label, instructions))
    waiting = [row for row in instructions if row["id"] not in labels]
    result.rows = [{**row, **labels[row["id"]]} for row in instructions if row["id"] in labels]
    result.dropped = [{"id": row["id"], "reason": "unlabelled"} for row in waiting]
    result.counts["labelled"] = len(result.rows)
    if waiting:
        result.counts["dropped_unlabelled"] = len(waiting)
    return result


def choose(
    rows: Iterable[Row],
    quotas: QuotaSettings,
    keep: Callable[[Row], None],
    drop: Callable[[Row], None],
) -> tuple[dict[str, int], dict[str, Any]]:
    """Hand each labelled row to `keep` or to `drop` ({id, reason}); returns counts and a report.

    Reasons: category (not named in the quotas), complexity (out of range), quota (its category has
    enough). A full category keeps its first rows; the selection is shuffled, so these are random.

    Counts: chosen, dropped_<reason>. Report: for `labelled` and for `chosen` rows histograms of
    category, complexity and length.
    """
    counts: Counter[str] = Counter(chosen=0)
    wanted = quotas.categories
    seen, chosen = _Histograms(), _Histograms()
    for row in rows:
        seen.add(row)
        category = row["category"]
        limit = None if wanted is None else wanted.get(category)
        reason = None
        if wanted is not None and category not in wanted:
            reason = "category"
        elif not quotas.min_complexity <= row["complexity"] <= quotas.max_complexity:
            reason = "complexity"
        elif limit is not None and chosen.of["category"][category] >= limit:
            reason = "quota"
        if reason is not None:
            counts[f"dropped_{reason}"] += 1
            drop({"id": row["id"], "reason": reason})
            continue
        chosen.add(row)
        counts["chosen"] += 1
        keep(row)
    return dict(counts), {"labelled": seen.report(), "chosen": chosen.report()}


class _Histograms:
    """How often each category, complexity and length occurs."""

    def __init__(self) -> None:
        self.of: dict[str, Counter[Any]] = {
            name: Counter() for name in ("category", "complexity", "length")
        }

    def add(self, row: Row) -> None:
        for name, histogram in self.of.items():
            histogram[row[name]] += 1

    def report(self) -> dict[str, dict[str, int]]:
        return {
            name: {str(value): count for value, count in sorted(histogram.items())}
            for name, histogram in self.of.items()
        }
