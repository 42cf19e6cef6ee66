"""How long to wait, and when to stop: no requests here."""

from __future__ import annotations

import time

import httpx

from selftaught.client.errors import ApiError

ENDED = frozenset({"succeeded", "completed", "failed", "cancelled"})
"""States of work that is over, of jobs and batches alike."""
FIRST_PAUSE = 0.1
"""Seconds between two looks, at first; short work is seen to end soon."""
PAUSE = 0.5
"""The same after five seconds."""
LONGEST_PAUSE = 5.0
GONE_SECONDS = 300.0
"""So long the gateway may be gone before who waits is told."""


class Watch:
    """A wait: its deadline, its pauses, and how long the gateway has been gone."""

    def __init__(self, what: str, timeout: float | None = None) -> None:
        self._what, self._timeout = what, timeout
        self._begun = self._heard = time.monotonic()

    def heard(self) -> None:
        """The gateway answered."""
        self._heard = time.monotonic()

    def lost(self, error: Exception) -> None:
        """Raise the error, unless it may pass."""
        passing = isinstance(error, httpx.TransportError) or (
            isinstance(error, ApiError) and error.status in (429, 502, 503, 504)
        )
        if not passing or time.monotonic() - self._heard > GONE_SECONDS:
            raise error

    def pause(self) -> float:
        """Seconds until the next look: 10 % of the time waited so far up to PAUSE, then 2 %.

        Raises TimeoutError.
        """
        waited = time.monotonic() - self._begun
        soon = min(max(FIRST_PAUSE, waited / 10), PAUSE)
        pause = min(max(soon, waited / 50), LONGEST_PAUSE)
        if self._timeout is None:
            return pause
        if waited >= self._timeout:
            raise TimeoutError(f"{self._what} has not ended after {self._timeout:.0f} s")
        return min(pause, self._timeout - waited)
