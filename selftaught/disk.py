"""A file system without room, whoever meets it: typed, so that work is tried again later."""

from __future__ import annotations

import errno

_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORDS = tuple(f"(os error {number})" for number in _ERRNOS)
"""As libraries written in Rust tell them."""


def is_full(error: BaseException | None) -> bool:
    """Whether this error, or one that it came from, is that there is no room for a file: on the
    disk, in a quota, or within the limit of a file's size."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ERRNOS:
            return True
        if any(word in str(error) for word in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
