"""Text of others is data: nothing in it may act as a control token, a verdict or a border.

Two measures, both pure. :func:`neutralise` breaks what a prompt means something by: `<|im_end|>`
becomes `< |im_end|>`, `[[A]]` becomes `[ [A]]`; the blank is seen by people and models alike, no
tokenizer puts the parts together again, and any other text stays byte for byte. :func:`fence` gives
a word that nobody who wrote the texts can have known, to stand around them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import takewhile

COMMON = (
    "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>",
    "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[THINK]", "[/THINK]", "<think>", "</think>", "<tool_call>", "</tool_call>",
    "<tool_response>", "</tool_response>", "<start_of_turn>", "<end_of_turn>",
    "<start_of_image>", "<end_of_image>", "[BOS]", "[EOS]", "[PAD]", "[UNK]", "[CLS]", "[SEP]",
    "[MASK]", "[gMASK]", "[sop]", "<sop>", "<eop>", "<unused",
)  # fmt: skip
"""Control tokens of the common families of chat models, beside all that look like `<|..|>`."""

FENCE = re.compile(r"data-[0-9a-f]{16}")
"""What a fence looks like."""

# Characters without width, which a reader does not see and some tokenizers drop.
_UNSEEN = "[\u00ad\u034f\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]{0,4}"
_FULL_WIDTH = 0xFEE0  # from a printable ASCII character to its full-width form
_NAME = "[^\\s<>|\uff1c\uff1e\uff5c]{1,64}"  # of `<|name|>`: ChatML, Llama 3, DeepSeek, Harmony, ..
_DEEPEST = 32  # groups inside each other: re compiles them by recursion


def neutralise(text: str, marks: tuple[str, ...] = ()) -> str:
    """`text` with a blank inside every common control token and every one of `marks`.

    A text without any of them is returned as it is, and so is what was returned.
    """
    return _break(_pattern((*COMMON, *marks), bars=True), text)


def break_tokens(text: str, tokens: tuple[str, ...]) -> str:
    """`text` with a blank inside each of these tokens and nowhere else."""
    return _break(_pattern(tokens, bars=False), text)


def fence(texts: Iterable[str], key: bytes) -> str:
    """A word that stands in none of the texts, the same for the same texts and key.

    HMAC-SHA256 (RFC 2104) of the texts: who does not know the key cannot tell it from a random one,
    and a text that quotes a fence seen earlier has another one itself.
    """
    shown = list(texts)
    message = json.dumps(shown).encode()
    number = 0
    while True:
        digest = hmac.new(key, b"%d " % number + message, hashlib.sha256).hexdigest()
        found = f"data-{digest[:16]}"
        if not any(found in text for text in shown):
            return found
        number += 1


def _break(pattern: re.Pattern[str], text: str) -> str:
    # Every blank parts two characters that were neighbours, so this ends.
    while (broken := pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)) != text:
        text = broken
    return text


@lru_cache(maxsize=256)
def _pattern(marks: tuple[str, ...], bars: bool) -> re.Pattern[str]:
    """Matches each mark, also in other case or full width, or with unseen characters inside.

    A mark that does not begin with two visible characters cannot be broken and is left out.
    """
    by_first: dict[str, list[list[str]]] = {}
    if bars:
        bar, end = [_UNSEEN, _alike("|")], [_UNSEEN, _alike(">")]
        by_first[_alike("<")] = [[*bar, _NAME, *bar, *end]]
    for mark in dict.fromkeys(mark.strip() for mark in marks):
        if len(mark) < 2 or mark[1].isspace():
            continue
        rest = [part for one in mark[1:] for part in (_UNSEEN, _alike(one))]
        by_first.setdefault(_alike(mark[0]), []).append(rest)
    if not by_first:
        return re.compile(r"(?!)")
    # A class in front lets the search skip quickly to where a mark may begin.
    first = "".join(one[1:-1] for one in by_first)
    branches = [f"(?<={one})(?:{_any_of(rests)})" for one, rests in by_first.items()]
    return re.compile(f"[{first}](?:{'|'.join(branches)})")


def _any_of(ways: list[list[str]], depth: int = 0) -> str:
    """An expression for the first of these ways that matches, each a sequence of expressions.

    It is a trie: a beginning that several share stands in it, and is tried, once.
    """
    side_by_side = takewhile(lambda parts: len(set(parts)) == 1, zip(*ways, strict=False))
    shared = [parts[0] for parts in side_by_side]
    rests = [way[len(shared) :] for way in ways]
    if [] in rests:  # matches whenever its turn comes: those after it have none
        rests = rests[: rests.index([]) + 1]
    if len(rests) == 1:
        return "".join([*shared, *rests[0]])
    if depth == _DEEPEST:
        branches = ["".join(rest) for rest in rests]
    else:
        by_first: dict[str, list[list[str]]] = {}
        for rest in rests:
            by_first.setdefault("".join(rest[:1]), []).append(rest)
        branches = [_any_of(same, depth + 1) for same in by_first.values()]
    return f"{''.join(shared)}(?:{'|'.join(branches)})"


def _alike(character: str) -> str:
    """A class of what reads like this character."""
    if character.isspace():
        return r"\s"
    narrow = ord(character) - _FULL_WIDTH
    plain = chr(narrow) if 0x21 <= narrow <= 0x7E else character
    same = {plain, plain.lower(), plain.upper()}
    same = {one for one in same if len(one) == 1}
    same |= {chr(ord(one) + _FULL_WIDTH) for one in same if 0x21 <= ord(one) <= 0x7E}
    return f"[{''.join(re.escape(one) for one in sorted(same))}]"
