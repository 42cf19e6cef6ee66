"""Whether a command printed what the page says."""

from __future__ import annotations

import re

_ID = re.compile(r"\b([a-z]{2,6})_(?:[0-9a-f]{20,}|[0-9a-f]*\.{2,})")
_SECRET = re.compile(r"\b(st|whsec)_[0-9A-Za-z_-]+(\.\.+)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|\+00(:00)?)?")
_HASH = re.compile(r"(?<![.\w])(?=\d*[a-f])[0-9a-f]{16,64}\b")
_NUMBER = re.compile(r"[+-]?\d+(,\d{3})*(\.\d+)?([eE][+-]?\d+)?")
_ELLIPSIS = re.compile(r"\.{2,}|…")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_RULE = re.compile(r"[─━═-]{3,}")
_TIGHT = re.compile(r"\s*([{}\[\],:|│┃])\s*")


def matches(shown: str, printed: str, figures_vary: bool) -> bool:
    """`shown` is the page's text; see the package's docstring for what it leaves open."""
    pieces = _ELLIPSIS.split(_plain(shown, figures_vary))
    pattern = ".*?".join(re.escape(piece.strip()) for piece in pieces)
    return re.fullmatch(rf"\s*{pattern}\s*", _plain(printed, figures_vary), re.DOTALL) is not None


def _plain(text: str, figures_vary: bool) -> str:
    """The same without what differs from run to run."""
    text = _ANSI.sub("", text)
    text = _SECRET.sub(r"\1_SECRET", _ID.sub(r"\1_ID", text))
    text = _TIME.sub("TIME", text)
    text = _HASH.sub("HASH", text)
    text = _RULE.sub("---", text)
    if figures_vary:
        text = _NUMBER.sub("N", text)
    return _TIGHT.sub(r"\1", " ".join(text.split()))
