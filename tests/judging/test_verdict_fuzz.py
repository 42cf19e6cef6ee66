"""The verdict parser on any text a model may write: no surprise, few passes, streamed or whole."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from selftaught.inference.chunks import assemble
from selftaught.judging import Verdict, load_judge_template, parse_verdict
from selftaught.judging.probability import Token, mark_logprobs

TEMPLATE = load_judge_template("mt-bench")
MARKS = list(TEMPLATE.verdicts.values())
PARTS = st.sampled_from([*MARKS, "[[", "]]", "[", "A", "\n", "\r", " ", "\0", "\u2028", "é", "🙂"])
TEXTS = st.lists(PARTS | st.text(max_size=6), max_size=12).map("".join)


@given(TEXTS)
@example("[[A]]\r\n")
@example("[[A]]\u2028")
@example("\n" * 1000)
def test_any_text_has_a_verdict_by_the_rule(text: str) -> None:
    found = {name for name, mark in TEMPLATE.verdicts.items() if len(text.split(mark)) > 1}
    last = [line for line in text.split("\n") if line.strip()][-1:]
    expected = Verdict.UNPARSABLE
    if len(found) == 1 and TEMPLATE.verdicts[name := found.pop()] in "".join(last):
        expected = Verdict(name)
    assert parse_verdict(text, TEMPLATE) is expected
    assert parse_verdict(text, TEMPLATE, finished=False) is Verdict.UNPARSABLE
    assert parse_verdict(text + "\n \n", TEMPLATE) is expected
    assert parse_verdict("well\n" + text, TEMPLATE) is expected


@given(st.lists(st.text("AB[]()*.+?\\", min_size=1, max_size=4), min_size=2, max_size=2), TEXTS)
def test_marks_are_texts_and_no_patterns(marks: list[str], text: str) -> None:
    assume(marks[0] not in marks[1] and marks[1] not in marks[0])
    template = TEMPLATE.model_copy(update={"verdicts": dict(zip("AB", marks, strict=True))})
    assert parse_verdict(f"because {marks[0]}", template) in (Verdict.A, Verdict.UNPARSABLE)
    assert parse_verdict(text, template) in Verdict


@given(TEXTS, st.lists(st.integers(0, 80), max_size=8))
@example("because [[A]]", [9, 10, 11, 12])
def test_streamed_in_any_pieces_the_verdict_is_the_same(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    heard: list[str] = []
    answer = asyncio.run(assemble(sent(pieces), heard.append))
    whole = answer["choices"][0]["message"]["content"]
    assert whole == text
    assert heard == [t for n, t in enumerate(prefixes(pieces)) if pieces[n]]
    assert parse_verdict(whole, TEMPLATE) is parse_verdict(text, TEMPLATE)


def prefixes(pieces: Sequence[str]) -> list[str]:
    return ["".join(pieces[: n + 1]) for n in range(len(pieces))]


async def sent(pieces: Sequence[str]) -> AsyncIterator[bytes]:
    """As a server sends them: an event for each piece, then why it ended."""
    for number, piece in enumerate([*pieces, ""]):
        reason = "stop" if number == len(pieces) else None
        chunk = {"choices": [{"delta": {"content": piece}, "finish_reason": reason}]}
        yield f"data: {json.dumps(chunk)}\n".encode()
        yield b"\n"
    yield b"data: [DONE]\n"
    yield b"\n"


class Counted(str):
    """A text that counts how many of its characters are looked at, pass by pass."""

    seen: list[int]

    def __new__(cls, text: str, seen: list[int]) -> Counted:
        found = super().__new__(cls, text)
        found.seen = seen
        return found

    def __contains__(self, other: object) -> bool:
        self.seen.append(len(self))
        return super().__contains__(str(other))

    def __iter__(self) -> Any:
        raise AssertionError("character by character, in Python")

    def __getitem__(self, place: Any) -> Any:
        raise AssertionError("piece by piece, in Python")

    def rstrip(self, characters: str | None = None) -> Counted:  # type: ignore[override]
        self.seen.append(len(self))
        return Counted(super().rstrip(characters), self.seen)

    def rpartition(self, separator: str) -> Any:
        self.seen.append(len(self))
        return tuple(Counted(part, self.seen) for part in super().rpartition(separator))


@given(TEXTS.filter(len), st.sampled_from([1, 10, 100]))
@example("[[A]]", 100)
@example("[[", 100)
@example("\n", 100)
def test_the_work_grows_with_the_text_and_no_faster(text: str, times: int) -> None:
    seen: list[int] = []
    parse_verdict(Counted(text * times, seen), TEMPLATE)
    assert sum(seen) <= (len(MARKS) + 3) * len(text) * times


LOGS = st.floats(-60, 0) | st.sampled_from([-math.inf, -1e9])
TOKENS = st.builds(
    Token, PARTS | st.text(max_size=3), LOGS, st.lists(st.tuples(PARTS, LOGS), max_size=5)
)


@given(st.lists(TOKENS, max_size=10))
def test_probabilities_of_marks_are_some_or_none(tail: list[Token]) -> None:
    found = mark_logprobs(tail, MARKS)
    if found is not None:
        assert len(found) == len(MARKS)
        assert math.isclose(sum(map(math.exp, found)), 1, rel_tol=1e-6)
