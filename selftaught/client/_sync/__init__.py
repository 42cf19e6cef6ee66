# Made from ../_async by scripts/unasync.py (make unasync): change that one.
"""The synchronous client, made from `_async` by scripts/unasync.py."""
