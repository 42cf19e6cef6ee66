"""Rejection sampling: of all judgments, the ones that reached the right verdict become lessons.

An input is a pair in one order. Kept are judgments whose verdict equals the label; of each input
`per_input` at random; then as many with label A as with label B. Source: Wang et al. 2024, arXiv
2408.02666, section 3; `both_orders` and `agree` are stricter options of ours, and the labels
`majority`, `random` and `none` (each judgment's own verdict: no rejection at all) are controls. Two
passes over the files: memory holds ids and positions.

Preference pairs for DPO set a kept judgment beside a rejected one of the same input. Rejected means
that it names the other response: a tie or an unparsable text would rather teach the form of a
verdict than which response is better (the authors of the paper take those as well).

What became of every judgment is told with it (fates.py).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from selftaught import jsonl
from selftaught.contracts import CurateSettings, Fate
from selftaught.hashing import stable_seed
from selftaught.judging import JudgeTemplate, Order, Verdict, tally
from services.generator.fates import fate_rows
from services.generator.judge import LABELS

Key = tuple[str, Order]


_UNKEPT: dict[Verdict, Fate] = {Verdict.TIE: "tie", Verdict.UNPARSABLE: "unparsable"}


@dataclass
class Input:
    """A pair in one order: every verdict, the judgments that may be kept, those that name the
    other response, and what became of each; `first` is where its judgments begin."""

    first: jsonl.Position
    verdicts: list[Verdict] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    wrong: list[Candidate] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)
    preferences: list[tuple[int, int]] = field(default_factory=list)

    def mark(self, candidates: Sequence[Candidate], fate: Fate) -> None:
        for candidate in candidates:
            self.fates[candidate.sample] = fate


@dataclass(frozen=True, slots=True)
class Candidate:
    """Which judgment of its input it is, where it stands, what it says, and the answer that it
    reasons from."""

    sample: int
    position: jsonl.Position
    verdict: Verdict
    answer: int
    tokens: int


def curate(
    judgments: Sequence[Path],
    pairs: Sequence[Path],
    template: JudgeTemplate,
    settings: CurateSettings,
    seed: int,
    keep: Callable[[jsonl.Row], None],
    prefer: Callable[[jsonl.Row], None] | None = None,
    tell: Callable[[jsonl.Row], None] | None = None,
) -> tuple[dict[str, int], dict[str, Any]]:
    """Hand training rows to `keep`, preference pairs to `prefer` if it is given; returns counts and
    a length report.

    `judgments` and `pairs` are the JSONL files that judge.py and pair.py made. Training rows are
    `{pair_id, order, label, prompt: [messages], completion: [one assistant message]}`, the
    conversational prompt-completion format of TRL and `datasets`. Preference pairs are `{pair_id,
    order, label, prompt: [messages], chosen: [one assistant message], rejected: [one assistant
    message]}`, TRL's conversational preference format with an explicit prompt; they change nothing
    in the training rows. `tell` is given what became of every judgment, a row for each pair
    (fates.fate_rows).

    Counts: inputs, judgments, judgments_right (verdict = label), kept (rows), kept_a,
    kept_b, and inputs dropped by reason: dropped_no_label (no majority), dropped_none_right,
    dropped_min_share, dropped_other_order (both_orders: nothing kept in the other order),
    dropped_disagree (agree: no two judgments of the two orders reason from the same answer),
    and rows dropped_balance. With `prefer` also preference_pairs, preferences_a, preferences_b,
    inputs dropped_none_wrong (kept, but nothing to set beside) and pairs
    dropped_preference_balance. Report: mean completion tokens of all, kept, kept_a and kept_b
    judgments (None where there are none).
    """
    counts: Counter[str] = Counter()
    inputs: dict[Key, Input] = {}
    tokens_all = 0
    with jsonl.Shelf(judgments) as shelf, jsonl.Shelf(pairs) as pair_shelf:
        for position, row in shelf.walk():
            verdict = Verdict(row["verdict"])
            entry = inputs.setdefault((row["pair_id"], row["order"]), Input(position))
            sample = len(entry.verdicts)
            entry.verdicts.append(verdict)
            entry.fates.append(_UNKEPT.get(verdict, "wrong"))
            if verdict in (Verdict.A, Verdict.B):
                answer = _answer(row["text"])
                entry.candidates.append(
                    Candidate(sample, position, verdict, answer, row["completion_tokens"])
                )
            counts["judgments"] += 1
            tokens_all += row["completion_tokens"]
        counts["inputs"] = len(inputs)
        _filter(inputs, settings, seed, counts)
        if settings.both_orders or settings.agree:
            _match_orders(inputs, settings, counts)
        chosen = _choose(inputs, settings, seed, counts)
        where = {row["id"]: position for position, row in pair_shelf.walk()}

        def write(key: Key, label: Verdict, **texts: Candidate) -> jsonl.Row:
            pair_id, order = key
            row = {
                "pair_id": pair_id,
                "order": order,
                "label": label.value,
                "prompt": template.show(pair_shelf.fetch(where[pair_id]), order),
            }
            for name, candidate in texts.items():
                text = shelf.fetch(candidate.position)["text"]
                row[name] = [{"role": "assistant", "content": text}]
            return row

        for key, right in chosen:
            keep(write(key, right.verdict, completion=right))
        if prefer is not None:
            for key, right, wrong in _pair_up(inputs, settings, seed, counts):
                prefer(write(key, right.verdict, chosen=right, rejected=wrong))
                inputs[key].preferences.append((right.sample, wrong.sample))
        if tell is not None:
            for told in fate_rows(inputs, where):
                tell(told)
    counts["kept"] = len(chosen)
    lengths = {
        "all": _mean(tokens_all, counts["judgments"]),
        "kept": _mean_tokens([c for _, c in chosen]),
        "kept_a": _mean_tokens([c for _, c in chosen if c.verdict is Verdict.A]),
        "kept_b": _mean_tokens([c for _, c in chosen if c.verdict is Verdict.B]),
    }
    return dict(counts), {"mean_completion_tokens": lengths}


def _filter(
    inputs: dict[Key, Input], settings: CurateSettings, seed: int, counts: Counter[str]
) -> None:
    """Leave each input only its right judgments: from here on a verdict is its label."""
    for key, entry in inputs.items():
        if settings.label != "none":
            label = _label(key, entry, settings, seed)
            if label is None:
                counts["dropped_no_label"] += 1
                entry.mark(entry.candidates, "no_label")
                entry.candidates = []
                continue
            entry.wrong = [c for c in entry.candidates if c.verdict is not label]
            entry.candidates = [c for c in entry.candidates if c.verdict is label]
        entry.mark(entry.candidates, "not_drawn")  # so far
        right = len(entry.candidates)
        counts["judgments_right"] += right
        if not right:
            counts["dropped_none_right"] += 1
        elif right / len(entry.verdicts) < settings.min_share:
            counts["dropped_min_share"] += 1
            entry.mark(entry.candidates, "min_share")
            entry.candidates = []


def _label(key: Key, entry: Input, settings: CurateSettings, seed: int) -> Verdict | None:
    pair_id, order = key
    if settings.label == "constructed":
        return LABELS[order]
    if settings.label == "random":
        return Verdict.A if stable_seed(seed, "label", pair_id, order) % 2 else Verdict.B
    majority = tally(entry.verdicts).verdict
    return majority if majority in (Verdict.A, Verdict.B) else None


def _match_orders(inputs: dict[Key, Input], settings: CurateSettings, counts: Counter[str]) -> None:
    """Keep an input only with its other order; with `agree`, only where the answers meet."""
    for pair_id in {pair_id for pair_id, _ in inputs}:
        ab, ba = inputs.get((pair_id, "AB")), inputs.get((pair_id, "BA"))
        both = [entry for entry in (ab, ba) if entry is not None and entry.candidates]
        if len(both) == 1:
            counts["dropped_other_order"] += 1
            both[0].mark(both[0].candidates, "other_order")
            both[0].candidates = []
        if len(both) < 2 or not settings.agree:
            continue
        common = {c.answer for c in both[0].candidates} & {c.answer for c in both[1].candidates}
        for entry in both:
            entry.mark(entry.candidates, "other_answer" if common else "disagree")
            entry.candidates = [c for c in entry.candidates if c.answer in common]
            counts["dropped_disagree"] += not entry.candidates


Chosen = tuple[Key, Candidate]
Preference = tuple[Key, Candidate, Candidate]  # right, wrong
Drawn = TypeVar("Drawn", Chosen, Preference)


def _choose(
    inputs: dict[Key, Input], settings: CurateSettings, seed: int, counts: Counter[str]
) -> list[Chosen]:
    """`per_input` judgments of each input at random, balanced between the labels, shuffled."""
    chosen: list[Chosen] = []
    for key in inputs:
        pool = _pool(inputs, key, settings, seed)
        rng = random.Random(stable_seed(seed, "keep", *key))
        drawn = rng.sample(pool, min(settings.per_input, len(pool)))
        inputs[key].mark(pool, "not_drawn")
        inputs[key].mark(drawn, "balance")  # unless its label has room for it
        chosen += [(key, candidate) for candidate in drawn]
    by_label, dropped = _balance(chosen, settings, seed)
    for key, candidate in [*by_label[Verdict.A], *by_label[Verdict.B]]:
        inputs[key].mark([candidate], "kept")
    if settings.balance:
        counts["dropped_balance"] = dropped
    counts["kept_a"], counts["kept_b"] = (len(by_label[v]) for v in (Verdict.A, Verdict.B))
    return sorted([*by_label[Verdict.A], *by_label[Verdict.B]], key=_shuffled(seed))


def _pair_up(
    inputs: dict[Key, Input], settings: CurateSettings, seed: int, counts: Counter[str]
) -> list[Preference]:
    """`per_input` of an input's right x wrong judgments at random, balanced, shuffled."""
    drawn: list[Preference] = []
    for key, entry in inputs.items():
        pool = _pool(inputs, key, settings, seed)
        counts["dropped_none_wrong"] += bool(pool) and not entry.wrong
        total = len(pool) * len(entry.wrong)
        rng = random.Random(stable_seed(seed, "prefer", *key))
        for number in rng.sample(range(total), min(settings.per_input, total)):
            right, wrong = divmod(number, len(entry.wrong))
            drawn.append((key, pool[right], entry.wrong[wrong]))
    by_label, counts["dropped_preference_balance"] = _balance(drawn, settings, seed)
    found = [by_label[label] for label in (Verdict.A, Verdict.B)]
    counts["preferences_a"], counts["preferences_b"] = map(len, found)
    counts["preference_pairs"] = sum(map(len, found))
    return sorted(found[0] + found[1], key=_shuffled(seed))


def _pool(
    inputs: dict[Key, Input], key: Key, settings: CurateSettings, seed: int
) -> list[Candidate]:
    """The judgments of an input of which some are drawn."""
    pool = inputs[key].candidates
    return _of_one_answer(inputs, key, seed) if settings.agree and pool else pool


def _balance(
    drawn: list[Drawn], settings: CurateSettings, seed: int
) -> tuple[dict[Verdict, list[Drawn]], int]:
    """By label, as many of each if the settings say so; and how many that left out."""
    by_label: dict[Verdict, list[Drawn]] = {Verdict.A: [], Verdict.B: []}
    for item in sorted(drawn, key=_shuffled(seed)):
        by_label[item[1].verdict].append(item)
    if not settings.balance:
        return by_label, 0
    fewest = min(len(items) for items in by_label.values())
    return {label: items[:fewest] for label, items in by_label.items()}, len(drawn) - 2 * fewest


def _of_one_answer(inputs: dict[Key, Input], key: Key, seed: int) -> list[Candidate]:
    """The candidates that reason from one answer, the same one for both orders of the pair."""
    answers = sorted({c.answer for c in inputs[key].candidates})
    answer = answers[stable_seed(seed, "answer", key[0]) % len(answers)]
    return [c for c in inputs[key].candidates if c.answer == answer]


def _shuffled(seed: int) -> Callable[[Chosen | Preference], Any]:
    return lambda item: (
        stable_seed(seed, "order", *item[0]),
        item[0],
        [candidate.position for candidate in item[1:]],
    )


def _answer(text: str) -> int:
    """What a judgment reasons from: its text up to the first sentence end, as a hash."""
    return stable_seed(text.partition(".")[0].strip())


def _mean_tokens(candidates: Sequence[Candidate]) -> float | None:
    return _mean(sum(c.tokens for c in candidates), len(candidates))


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None
