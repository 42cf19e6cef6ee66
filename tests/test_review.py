"""`selftaught review`: what the terminal is given."""

from __future__ import annotations

import datetime as dt
import io
from typing import NoReturn, cast

import pytest
from rich.console import Console

from selftaught import review
from selftaught.client import ApiError, Client
from selftaught.contracts import ReviewItemOut, ReviewNextOut


@pytest.mark.parametrize("nasty", ["\x1b]0;title\x07", "\x1b[2J", "\x9b2J", "\r", "\x00", "\x7f"])
def test_reviewed_text_does_not_steer_the_terminal(nasty: str) -> None:
    written = io.StringIO()
    said = f"one{nasty}two\tthree\nfour"
    item = ReviewItemOut(
        id="item_1",
        context=[{"role": "user", "content": said}],
        instruction=said,
        response_a=said,
        response_b=said,
        held_until=dt.datetime.now(dt.UTC),
    )
    review._show(item, 1, Console(file=written, width=80))
    shown = written.getvalue()
    assert shown.count("one\N{REPLACEMENT CHARACTER}") == 4 and shown.count("four") == 4
    assert not [letter for letter in shown if letter != "\n" and not letter.isprintable()]


class Late:
    """A gateway with one item, which others have answered meanwhile."""

    def __init__(self, code: str) -> None:
        self.code, self.left, self.reviews = code, 1, self

    def next(self, _version: str, _reviewer: str) -> ReviewNextOut:
        now = dt.datetime.now(dt.UTC)
        item = ReviewItemOut(
            id="item_1", context=[], instruction="i", response_a="a", response_b="b", held_until=now
        )
        return ReviewNextOut(item=item if self.left else None, left=self.left)

    def answer(self, _item: str, _reviewer: str, _verdict: str) -> NoReturn:
        self.left = 0
        raise ApiError(409, {"code": self.code, "detail": "d"})


def test_an_answer_that_comes_too_late_does_not_end_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(review, "_ask", lambda: "a")
    written = io.StringIO()
    console = Console(file=written, width=80)
    late = cast(Client, Late("already_published"))
    assert review.run(late, "m:1", "ada", console) == 0
    assert "too late" in written.getvalue() and "nothing is left" in written.getvalue()
    assert "to fill the queue of m:1: POST /v1/models/" in written.getvalue()
    with pytest.raises(ApiError, match="not_shown"):
        review.run(cast(Client, Late("not_shown")), "m:1", "ada", console)
