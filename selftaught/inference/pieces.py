"""The texts of single tokens."""

from __future__ import annotations

from typing import Any


class Pieces:
    """Token id -> its text inside a sentence, blanks before it included; special tokens as well.

    Some decoders drop the first blank of a text, so each token is decoded behind another one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._before = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._skip = len(tokenizer.decode(self._before))
        self._known: dict[int, str] = {}

    def __getitem__(self, token: int) -> str:
        if token not in self._known:
            text = self._tokenizer.decode([*self._before, token])
            self._known[token] = text[self._skip :]
        return self._known[token]
