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
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from selftaught.contracts import PairSettings
from selftaught.hashing import stable_seed
from selftaught.inference import Ask, Completion, Dialogue, Engine, Request, Sampling
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
    if settings.construction == "verified":
        construct = _verified
    elif template.one_call:
        construct = _one_call
    else:
        construct = _separate
    work = [_Work(row, template, settings, seed) for row in instructions]
    engine.converse(map(construct, work))
    result = Pairs()
    result.counts["instructions"] = len(instructions)
    for one in work:
        result.counts.update(one.counts)
        if one.pair is not None:
            result.rows.append(one.pair)
        else:
            result.dropped.append({"id": one.row["id"], "reason": one.reason})
            result.counts[f"dropped_{one.reason}"] += 1
    result.counts["pairs"] = len(result.rows)
    return result


def _separate(work: _Work) -> Dialogue:
    """x', then an answer to x and one to x', each in a call of its own."""
    if not (yield from _modify(work)):
        return
    respond = work.settings.respond
    (good,) = yield from work.ask("chosen", _question(work.row), respond)
    if not good.finished:
        return work.drop(_cut(good))
    (bad,) = yield from work.ask("rejected", _modified_question(work.row), respond)
    if not bad.finished:
        return work.drop(_cut(bad))
    work.keep(good.text, bad.text)


def _one_call(work: _Work) -> Dialogue:
    """An answer to x; then x' and its answer in one call."""
    (good,) = yield from work.ask("chosen", _question(work.row), work.settings.respond)
    if not good.finished:
        return work.drop(_cut(good))
    if not good.text.strip():
        return work.drop("empty")
    work.row["chosen"] = good.text.strip()
    if (yield from _modify(work)):
        work.keep(work.row["chosen"], work.row["rejected"])


def _verified(work: _Work) -> Dialogue:
    """The first right and the first wrong one of several answers to x."""
    reference = work.row.get("reference")
    if not reference:
        return work.drop("no_reference")
    samples, respond = work.settings.samples, work.settings.respond
    answers = yield from work.ask("verified", _question(work.row), respond, n=samples)
    finished = [answer.text for answer in answers if answer.finished and answer.text.strip()]
    right = [text for text in finished if meets(text, reference) is True]
    wrong = [text for text in finished if meets(text, reference) is False]
    if not finished:
        cut = next((answer for answer in answers if not answer.finished), None)
        work.drop(_cut(cut) if cut is not None else "empty")
    elif not right or not wrong:
        work.drop("no_wrong" if right else "no_right")
    else:
        work.keep(right[0], wrong[0])


def _modify(work: _Work) -> Generator[Ask, list[Completion], bool]:
    """Give the row its `modified_instruction`, and `rejected` if the template asks for a response.

    A reply that is of no use is asked for again, as the next sample, up to `settings.retries`
    times; then the row is dropped for the last reply's reason, and the answer is no.
    """
    shown = in_context(work.row["instruction"], work.row.get("context"))
    prompt = work.template.render(shown, work.row.get("chosen", ""))
    for attempt in range(1 + work.settings.retries):
        if attempt:
            work.counts["retried"] += 1
        (reply,) = yield from work.ask("modify", prompt, work.settings.modify, attempt)
        found = _read(reply, work.row, work)
        if not isinstance(found, str):
            work.row |= found
            return True
        work.drop(found)  # so far
        if found == "rejected":  # the prompt will not get any shorter
            break
    return False


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


class _Work:
    """One instruction on its way to a pair: asks, and is kept or dropped."""

    def __init__(
        self, row: Row, template: ModifyTemplate, settings: PairSettings, seed: int
    ) -> None:
        self.row = dict(row)
        self.template, self.settings, self._seed = template, settings, seed
        self.pair: Row | None = None
        self.reason = ""
        self.counts: Counter[str] = Counter()

    def ask(
        self, part: str, prompt: list[Message], sampling: Sampling, first: int = 0, n: int = 1
    ) -> Generator[Ask, list[Completion], list[Completion]]:
        """Samples first .. first+n-1."""
        seed = stable_seed(self._seed, part, self.row["id"])
        answers = yield Request(prompt, seed, n, first), sampling
        self.counts["prompt_tokens"] += answers[0].prompt_tokens
        self.counts["completion_tokens"] += sum(answer.completion_tokens for answer in answers)
        return answers

    def keep(self, good: str, bad: str) -> None:
        """Two finished answers become a pair, unless nothing can be learnt from telling them."""
        good, bad = good.strip(), bad.strip()
        if not good or not bad:
            self.drop("empty")
        elif normalise(good) == normalise(bad):
            self.drop("equal")
        elif _alike(good, bad, self.settings.near_equal):
            self.drop("near_equal")
        else:
            carried = ("id", "instruction", "context", "modified_instruction")
            known = {key: self.row[key] for key in carried if key in self.row}
            self.pair = {**known, "chosen": good, "rejected": bad}

    def drop(self, reason: str) -> None:
        self.reason = reason


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
