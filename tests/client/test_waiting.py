"""How long the client waits between two looks: often at first, less the longer it takes."""

from __future__ import annotations

import httpx
import pytest

from selftaught.client import waiting
from selftaught.client.errors import ApiError
from selftaught.client.waiting import Watch


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("waited", "pause"),
    [(0.0, 0.1), (1.0, 0.1), (3.0, 0.3), (5.0, 0.5), (25.0, 0.5), (100.0, 2.0), (3600.0, 5.0)],
)
def test_pauses_grow_with_what_was_waited(clock: Clock, waited: float, pause: float) -> None:
    watch = Watch("job_1")
    clock.now += waited
    assert watch.pause() == pytest.approx(pause)


def test_short_work_is_looked_at_often_and_long_work_seldom(clock: Clock) -> None:
    watch, looks = Watch("job_1"), 0
    began = clock.now
    while clock.now < began + 3600:
        clock.now += watch.pause()
        looks += 1
        if looks == 10:
            assert clock.now - began == pytest.approx(1.0), "ten looks in the first second"
    assert looks < 1000, "an hour's job"


def test_the_last_pause_ends_at_the_deadline(clock: Clock) -> None:
    watch = Watch("job_1", timeout=10)
    clock.now += 9.9
    assert watch.pause() == pytest.approx(0.1)
    clock.now += 0.1
    with pytest.raises(TimeoutError, match="job_1 has not ended after 10 s"):
        watch.pause()


def test_a_gateway_that_is_gone_for_long_is_told(clock: Clock) -> None:
    watch, gone = Watch("job_1"), httpx.ConnectError("refused")
    clock.now += waiting.GONE_SECONDS
    watch.lost(gone)  # it may come back
    watch.heard()
    clock.now += waiting.GONE_SECONDS
    watch.lost(gone)
    clock.now += 1
    with pytest.raises(httpx.ConnectError):
        watch.lost(gone)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ApiError(503, {}), True),
        (ApiError(429, {}), True),
        (ApiError(404, {}), False),
        (ValueError("nonsense"), False),
    ],
)
def test_what_does_not_pass_is_told_at_once(clock: Clock, error: Exception, passes: bool) -> None:
    watch = Watch("job_1")
    if passes:
        watch.lost(error)
    else:
        with pytest.raises(type(error)):
            watch.lost(error)
