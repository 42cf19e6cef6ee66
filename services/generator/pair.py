"""Makes response pairs whose worse side is known by construction: nobody has to label anything.

`modified`: for an instruction x the model answers x (chosen), writes a similar but different
instruction x', and answers x' (rejected): a good answer, to the wrong question. x' is answered in a
call of its own, in the same way as x, so that the two responses differ in nothing but what they
answer; or, with a one-call template, x' and its answer come from one call that sees x and the
chosen response, as in the paper (Wang et al. 2024, arXiv 2408.02666, section 3).

`verified`: of several sampled answers to x, one that meets the row's reference answer (chosen) and
one that does not (rejected); see verify.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from selftaught.contracts import PairSettings
from selftaught.hashing import stable_seed
from selftaught.inference import Completion, Engine, Request, Sampling
from selftaught.jsonl import Row
from selftaught.judging import Message, ModifyTemplate, in_context
from services.generator.select import normalise
from services.generator.verify import meets

_REFUSAL = re.compile(
    r"(i'm |i am )?(very |so )?sorry\b|i('m| am) (unable|not able)\b|as an ai\b|i apologi[sz]e\b"
    r"|i (can't|cannot|can not|won't|will not) "
    r"(help|assist|comply|fulfil|do|create|write|provide|generate|modify|answer)",
    re.IGNORECASE,
)


@dataclass
class Pairs:
    """What a chunk of instructions became.

    `rows`: {id, instruction, context?, modified_instruction?, chosen, rejected}. `dropped`: {id,
    reason} with reason one of truncated (by the length limit), rejected (the model cannot take the
    prompt), empty, equal (the responses, but for case and white space), near_equal; of a
    modification also modification_unparsable, modification_unchanged, refusal; of verified pairs
    also no_reference, no_right, no_wrong. `counts`: instructions, pairs, dropped_<reason>, retried
    (modifications asked for again), prompt_tokens, completion_tokens.
    """

    rows: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def make_pairs(
    instructions: Sequence[Row],
    engine: Engine,
    template: ModifyTemplate,
    settings: PairSettings,
    seed: int,
) -> Pairs:
    """Pairs for rows {id, instruction, context?, reference?}, in their order.

    The random numbers depend on (seed, id) only. A row's context stands before its instruction in
    every prompt.
    """
    work = _Work(engine, template, settings, seed, Pairs())
    work.pairs.counts["instructions"] = len(instructions)
    if settings.construction == "verified":
        _verified(work, instructions)
    elif template.one_call:
        _one_call(work, instructions)
    else:
        _separate(work, instructions)
    work.pairs.counts["pairs"] = len(work.pairs.rows)
    return work.pairs


def _separate(work: _Work, instructions: Sequence[Row]) -> None:
    """x', then an answer to x and one to x', each in a call of its own."""
    modified = _modify(work, instructions)
    respond = work.settings.respond
    answered = []
    for row, (good,) in zip(
        modified, work.ask(modified, "chosen", _question, respond), strict=True
    ):
        if good.finished:
            answered.append({**row, "chosen": good.text})
        else:
            work.drop(row, _cut(good))
    replies = work.ask(answered, "rejected", _modified_question, respond)
    for row, (bad,) in zip(answered, replies, strict=True):
        if bad.finished:
            work.keep(row, row["chosen"], bad.text)
        else:
            work.drop(row, _cut(bad))


def _one_call(work: _Work, instructions: Sequence[Row]) -> None:
    """An answer to x; then x' and its answer in one call."""
    answered = []
    replies = work.ask(instructions, "chosen", _question, work.settings.respond)
    for row, (good,) in zip(instructions, replies, strict=True):
        if not good.finished:
            work.drop(row, _cut(good))
        elif not good.text.strip():
            work.drop(row, "empty")
        else:
            answered.append({**row, "chosen": good.text.strip()})
    for row in _modify(work, answered):
        work.keep(row, row["chosen"], row["rejected"])


def _verified(work: _Work, instructions: Sequence[Row]) -> None:
    """The first right and the first wrong one of several answers to x."""
    rows = [row for row in instructions if row.get("reference")]
    for row in instructions:
        if not row.get("reference"):
            work.drop(row, "no_reference")
    samples = work.settings.samples
    replies = work.ask(rows, "verified", _question, work.settings.respond, n=samples)
    for row, answers in zip(rows, replies, strict=True):
        finished = [answer.text for answer in answers if answer.finished and answer.text.strip()]
        right = [text for text in finished if meets(text, row["reference"]) is True]
        wrong = [text for text in finished if meets(text, row["reference"]) is False]
        cut = next((answer for answer in answers if not answer.finished), None)
        if not finished:
            work.drop(row, _cut(cut) if cut is not None else "empty")
        elif not right or not wrong:
            work.drop(row, "no_wrong" if right else "no_right")
        else:
            work.keep(row, right[0], wrong[0])


def _modify(work: _Work, instructions: Sequence[Row]) -> list[Row]:
    """The rows with `modified_instruction`, and `rejected` if the template asks for a response.

    A reply that is of no use is asked for again, by itself and as the next sample, up to
    `settings.retries` times; then the row is dropped for the last reply's reason.
    """
    done: dict[str, Row] = {}
    reasons: dict[str, str] = {}
    waiting = list(instructions)
    for attempt in range(1 + work.settings.retries):
        if attempt:
            failed = [row for row in waiting if row["id"] not in done]
            waiting = [row for row in failed if reasons[row["id"]] != "rejected"]
            if not waiting:
                break
            work.pairs.counts["retried"] += len(waiting)
        replies = work.ask(waiting, "modify", work.modify_prompt, work.settings.modify, attempt)
        for row, (reply,) in zip(waiting, replies, strict=True):
            found = _read(reply, row, work)
            if isinstance(found, str):
                reasons[row["id"]] = found
            else:
                done[row["id"]] = {**row, **found}
    for row in instructions:
        if row["id"] not in done:
            work.drop(row, reasons[row["id"]])
    return [done[row["id"]] for row in instructions if row["id"] in done]


def _read(reply: Completion, row: Row, work: _Work) -> Row | str:
    """What a reply to the modify prompt adds to its row, or the reason why it is of no use."""
    if not reply.finished:
        return _cut(reply)
    found = work.template.read(reply.text)
    said = [reply.text, found.response or "" if found else ""]
    if work.settings.drop_refusals and any(map(_refuses, said)):
        return "refusal"
    if found is None:
        return "modification_unparsable"
    if normalise(found.instruction) == normalise(row["instruction"]):
        return "modification_unchanged"
    added = {"modified_instruction": found.instruction}
    return added if found.response is None else {**added, "rejected": found.response}


@dataclass
class _Work:
    """A chunk in the making: asks, keeps, drops, counts."""

    engine: Engine
    template: ModifyTemplate
    settings: PairSettings
    seed: int
    pairs: Pairs

    def ask(
        self,
        rows: Sequence[Row],
        part: str,
        prompt: Callable[[Row], list[Message]],
        sampling: Sampling,
        first: int = 0,
        n: int = 1,
    ) -> list[list[Completion]]:
        """Samples first .. first+n-1 for each row."""
        requests = [
            Request(prompt(row), stable_seed(self.seed, part, row["id"]), n, first) for row in rows
        ]
        answers = self.engine.generate(requests, sampling)
        for several in answers:
            self.pairs.counts["prompt_tokens"] += several[0].prompt_tokens
            self.pairs.counts["completion_tokens"] += sum(a.completion_tokens for a in several)
        return answers

    def modify_prompt(self, row: Row) -> list[Message]:
        shown = in_context(row["instruction"], row.get("context"))
        return self.template.render(shown, row.get("chosen", ""))

    def keep(self, row: Row, good: str, bad: str) -> None:
        """Two finished answers become a pair, unless nothing can be learnt from telling them."""
        good, bad = good.strip(), bad.strip()
        if not good or not bad:
            self.drop(row, "empty")
        elif normalise(good) == normalise(bad):
            self.drop(row, "equal")
        elif _alike(good, bad, self.settings.near_equal):
            self.drop(row, "near_equal")
        else:
            carried = ("id", "instruction", "context", "modified_instruction")
            known = {key: row[key] for key in carried if key in row}
            self.pairs.rows.append({**known, "chosen": good, "rejected": bad})

    def drop(self, row: Row, reason: str) -> None:
        self.pairs.dropped.append({"id": row["id"], "reason": reason})
        self.pairs.counts[f"dropped_{reason}"] += 1


def _question(row: Row) -> list[Message]:
    return [*row.get("context", []), {"role": "user", "content": row["instruction"]}]


def _modified_question(row: Row) -> list[Message]:
    return [*row.get("context", []), {"role": "user", "content": row["modified_instruction"]}]


def _cut(answer: Completion) -> str:
    return "truncated" if answer.finish_reason == "length" else "rejected"


def _refuses(text: str) -> bool:
    return _REFUSAL.match(text.strip().replace("’", "'")) is not None


def _alike(one: str, other: str, threshold: float) -> bool:
    """Whether the words of two texts are at least this similar (Ratcliff/Obershelp, difflib)."""
    if threshold == 1:
        return False
    match = SequenceMatcher(None, normalise(one).split(), normalise(other).split(), autojunk=False)
    # The first two are cheap upper bounds of the third.
    measures = (match.real_quick_ratio, match.quick_ratio, match.ratio)
    return all(measure() >= threshold for measure in measures)
