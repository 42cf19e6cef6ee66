"""The one way from messages to a prompt's text, for sampling and for training alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from selftaught.judging import Message, break_tokens


def render_chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The model's chat template around these messages, up to where the assistant begins.

    Only the template makes special tokens: those that stand in a message's content are broken.
    Raises jinja2's TemplateError, as some templates refuse a system message.
    """
    tokens = special_tokens(tokenizer)
    plain = [{**one, "content": break_tokens(one["content"], tokens)} for one in messages]
    text: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    return text


@lru_cache(maxsize=16)
def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The texts that this tokenizer reads as special tokens, wherever they stand."""
    added = tokenizer.added_tokens_decoder.values()
    found = {*tokenizer.all_special_tokens, *(one.content for one in added if one.special)}
    return tuple(sorted(found))
