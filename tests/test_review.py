"""`selftaught review`: what the terminal is given."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from selftaught import review


@pytest.mark.parametrize("nasty", ["\x1b]0;title\x07", "\x1b[2J", "\x9b2J", "\r", "\x00", "\x7f"])
def test_reviewed_text_does_not_steer_the_terminal(nasty: str) -> None:
    written = io.StringIO()
    said = f"one{nasty}two\tthree\nfour"
    item = {
        "context": [{"role": "user", "content": said}],
        "instruction": said,
        "response_a": said,
        "response_b": said,
    }
    review._show(item, 1, Console(file=written, width=80))
    shown = written.getvalue()
    assert shown.count("one\N{REPLACEMENT CHARACTER}") == 4 and shown.count("four") == 4
    assert not [letter for letter in shown if letter != "\n" and not letter.isprintable()]
