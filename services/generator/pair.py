"""Makes response pairs whose worse side is known by construction: nobody has to label anything.

For an instruction x the model answers x (chosen), writes a similar but different instruction x',
and answers x' (rejected): a good answer, to the wrong question. x' is answered in a call of its
own, in the same way as x, so that the two responses differ in nothing but what they answer (the
paper writes x' and its answer in one call). Source: Wang et al. 2024, arXiv 2408.02666, section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from selftaught.contracts import PairSettings
from selftaught.hashing import stable_seed
from selftaught.inference import Completion, Engine, Request, Sampling
from selftaught.jsonl import Row
from selftaught.judging import Message, ModifyTemplate
from services.generator.select import normalise


@dataclass
class Pairs:
    """What a chunk of instructions became.

    `rows`: {id, instruction, modified_instruction, chosen, rejected}. `dropped`: {id, reason} with
    reason one of modification_unparsable, modification_unchanged, truncated (by the length limit),
    rejected (the model cannot take the prompt), empty, equal (the responses, but for case and
    white space). `counts`: instructions, pairs, dropped_<reason>, prompt_tokens,
    completion_tokens.
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
    """Pairs for rows {id, instruction}. The random numbers depend on (seed, id) only."""
    pairs = Pairs()
    pairs.counts["instructions"] = len(instructions)

    def ask(rows: Sequence[Row], part: str, sampling: Sampling) -> list[Completion]:
        requests = [
            Request(_prompt(row, part, template), stable_seed(seed, part, row["id"]))
            for row in rows
        ]
        answers = [several[0] for several in engine.generate(requests, sampling)]
        pairs.counts["prompt_tokens"] += sum(a.prompt_tokens for a in answers)
        pairs.counts["completion_tokens"] += sum(a.completion_tokens for a in answers)
        return answers

    def drop(row: Row, reason: str) -> None:
        pairs.dropped.append({"id": row["id"], "reason": reason})
        pairs.counts[f"dropped_{reason}"] += 1

    modified: list[Row] = []
    replies = ask(instructions, "modify", settings.modify)
    for row, reply in zip(instructions, replies, strict=True):
        text = template.read_instruction(reply.text)
        if not reply.finished:
            drop(row, _cut(reply))
        elif text is None:
            drop(row, "modification_unparsable")
        elif normalise(text) == normalise(row["instruction"]):
            drop(row, "modification_unchanged")
        else:
            modified.append({**row, "modified_instruction": text})

    chosen = ask(modified, "chosen", settings.respond)
    rejected = ask(modified, "rejected", settings.respond)
    for row, good, bad in zip(modified, chosen, rejected, strict=True):
        cut = next((answer for answer in (good, bad) if not answer.finished), None)
        if cut is not None:
            drop(row, _cut(cut))
        elif not good.text.strip() or not bad.text.strip():
            drop(row, "empty")
        elif normalise(good.text) == normalise(bad.text):
            drop(row, "equal")
        else:
            pairs.rows.append(
                {
                    "id": row["id"],
                    "instruction": row["instruction"],
                    "modified_instruction": row["modified_instruction"],
                    "chosen": good.text.strip(),
                    "rejected": bad.text.strip(),
                }
            )
    pairs.counts["pairs"] = len(pairs.rows)
    return pairs


def _prompt(row: Row, part: str, template: ModifyTemplate) -> list[Message]:
    if part == "modify":
        return template.render(row["instruction"])
    content = row["instruction"] if part == "chosen" else row["modified_instruction"]
    return [{"role": "user", "content": content}]


def _cut(answer: Completion) -> str:
    return "truncated" if answer.finish_reason == "length" else "rejected"
