"""A text that grows token by token, told as far as it will stay as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selftaught.inference.protocol import Hear

_INCOMPLETE = "\ufffd"
"""How a tokenizer writes the first bytes of a character whose others are still to come."""


class Growing:
    """The text of one sample.

    Only the newest tokens are decoded, together with a few before them, on which their spaces
    depend (as text-generation-inference does, `Model.decode_token`), so a step costs the same
    however long the text is. Whoever must have it exactly decodes all tokens in the end.
    """

    def __init__(self, tokenizer: Any, hear: Hear) -> None:
        self._tokenizer, self._hear = tokenizer, hear
        self._text = ""
        self._context = 0  # where decoding begins,
        self._told = 0  # and up to which token the text has been told

    def grow(self, tokens: Sequence[int]) -> None:
        """Tell the text of all `tokens` so far, unless it ends within a character."""
        before = self._decode(tokens[self._context : self._told])
        now = self._decode(tokens[self._context :])
        if len(now) <= len(before) or now.endswith(_INCOMPLETE):
            return
        self._text += now[len(before) :]
        self._context, self._told = self._told, len(tokens)
        self._hear(self._text)

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)  # type: ignore[no-any-return]
