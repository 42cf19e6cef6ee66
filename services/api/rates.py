"""How many requests a project has sent in this minute, over all replicas of the gateway.

A minute begins with its first request. The count lies in Redis, which is never the truth: while it
is away or slow, each gateway counts for itself, and asks it again only after AWAY_SECONDS.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

WINDOW = 60
"""Seconds."""
PATIENCE = 0.25
"""Seconds that a request waits for Redis."""
AWAY_SECONDS = 5.0
_CONNECTIONS = 16
_MOST = 10_000  # projects that are counted here while Redis is away
_COUNT = """
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    left = ARGV[2]
end
return {count, left}
"""


@dataclass(frozen=True)
class Counted:
    """Requests in this minute, and the seconds that are left of it."""

    requests: int
    seconds: float


class Rates:
    """Counts requests; lives in one event loop."""

    def __init__(self, redis_url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            redis_url,
            max_connections=_CONNECTIONS,
            timeout=PATIENCE,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._count = self._redis.register_script(_COUNT)
        self._away_until = 0.0
        self._here: dict[str, tuple[int, float]] = {}  # project -> requests, end of its minute

    async def count(self, project: str, requests: int = 1) -> Counted:
        """Count one more request of a project (or 0: only look)."""
        if time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(2 * PATIENCE):
                    key = f"selftaught:requests:{project}"
                    found, left = await self._count([key], [requests, WINDOW * 1000])
                    return Counted(int(found), int(left) / 1000)
            except (RedisError, OSError, TimeoutError) as error:
                if time.monotonic() >= self._away_until:  # of many that waited, one tells
                    logger.warning("requests are counted without Redis: %r", error)
                self._away_until = time.monotonic() + AWAY_SECONDS
        return self._count_here(project, requests)

    def _count_here(self, project: str, requests: int) -> Counted:
        now = time.monotonic()
        found, end = self._here.get(project, (0, 0.0))
        if end <= now:
            found, end = 0, now + WINDOW
            if len(self._here) >= _MOST:
                self._here = {name: one for name, one in self._here.items() if one[1] > now}
        self._here[project] = (found + requests, end)
        return Counted(found + requests, end - now)

    async def close(self) -> None:
        """Give connections back."""
        await self._redis.aclose()
