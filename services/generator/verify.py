"""Whether a response's final answer is the reference answer: yes, no, or not to be decided.

A wrong label teaches the judge the wrong thing, so only clear cases count. The final answer of a
text is what its last mark says (GSM8K's `#### 42`, `\\boxed{42}`, "the answer is 42",
"answer: 42"), else the whole text. Then, if the reference is a number: right if the last number of
the final answer equals it, undecided if there is no number or the reference is another one of
them, else wrong. Otherwise: right if both are the same but for case, white space and punctuation
around them; undecided if the reference stands somewhere in the final answer; else wrong.
"""

from __future__ import annotations

import re
from fractions import Fraction

_MARK = re.compile(
    r"####\s*(?P<hashes>.+)"
    r"|\\boxed\{(?P<boxed>(?:[^{}]|\{[^{}]*\})*)\}"
    r"|\banswer(?:\s+is\b\s*:?|\s*:)\s*(?P<said>.+)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:/[1-9]\d*)?")
_AROUND = " \t\n.,;:!?\"'`*$()[]{}"


def meets(response: str, reference: str) -> bool | None:
    """True: the response ends in the reference answer; False: in another; None: undecided."""
    wanted, given = _final(reference), _final(response)
    number = _as_number(wanted)
    if number is not None:
        said = [_value(found) for found in _NUMBER.findall(given)]
        if said and said[-1] == number:
            return True
        return None if not said or number in said else False
    wanted, given = _plain(wanted), _plain(given)
    if not wanted or not given:
        return None
    if wanted == given:
        return True
    return None if re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", given) else False


def _final(text: str) -> str:
    marked = list(_MARK.finditer(text))
    return next(part for part in marked[-1].groups() if part is not None) if marked else text


def _as_number(text: str) -> Fraction | None:
    """The number that a text is, but for a currency or percent sign and punctuation around it."""
    bare = text.strip(_AROUND + "%€£")
    return _value(bare) if _NUMBER.fullmatch(bare) else None


def _value(number: str) -> Fraction:
    whole, _, below = number.replace(",", "").partition("/")
    return Fraction(whole) / Fraction(below or 1)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().strip(_AROUND)
