"""The temperature: recovered where it is known, finite where it is not, measured beside it."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.judging.calibration import (
    FEWEST,
    HOTTEST,
    calibrations,
    fit,
    measures,
    reliability,
)


def pairs(
    temperature: float, n: int, seed: int = 0
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Log-odds of the better one, of a judge that is sure `temperature` times too much."""
    rng = np.random.default_rng(seed)
    honest = np.abs(rng.normal(0, 2, n))
    right = rng.random(n) < 1 / (1 + np.exp(-honest))
    return np.where(right, honest, -honest) * temperature


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    found = pairs(temperature, 20_000)
    assert fit(found) == pytest.approx(temperature, rel=0.05)
    before, after = measures(found), measures(found / fit(found))
    assert after["log_loss"] <= before["log_loss"] + 1e-4
    assert after["ece"] < 0.02
    if temperature > 1:
        assert before["ece"] > 0.1


def test_no_nearby_temperature_is_better() -> None:
    found = pairs(3.0, 500)
    best = fit(found)

    def loss(temperature: float) -> float:
        target = 501 / 502
        odds = found / temperature
        return float(
            (target * np.logaddexp(0, -odds) + (1 - target) * np.logaddexp(0, odds)).mean()
        )

    assert loss(best) < min(loss(best * 1.02), loss(best / 1.02))


def test_extremes_stay_finite() -> None:
    always = fit(np.full(100, 20.0))
    # Platt's target for 100 pairs that were all right
    assert 1 / (1 + np.exp(-20 / always)) == pytest.approx(101 / 102)
    assert fit(np.array([5.0, -5.0] * 50)) == pytest.approx(HOTTEST)
    assert fit(np.full(100, -5.0)) == pytest.approx(HOTTEST)
    assert 0 < fit(np.full(100, 0.001)) < 1


def test_measures_of_a_few_pairs() -> None:
    certain = np.log(np.array([0.92 / 0.08, 0.92 / 0.08, 0.08 / 0.92]))
    found = measures(certain)
    assert found["log_loss"] == pytest.approx(-(2 * np.log(0.92) + np.log(0.08)) / 3)
    assert found["brier"] == pytest.approx((2 * 0.08**2 + 0.92**2) / 3)
    assert found["ece"] == pytest.approx(0.92 - 2 / 3)
    coin = measures(np.zeros(4))
    assert coin == pytest.approx({"log_loss": np.log(2), "brier": 0.25, "ece": 0})
    counts, right, said = reliability(np.array([0.0, 50.0, -50.0]))
    assert (counts[0], counts[-1]) == (1, 2) and right[-1] == 0.5 and said[-1] == pytest.approx(1)


def test_every_set_is_measured_with_the_held_out_temperature() -> None:
    heldout, labelled = pairs(4.0, 200), pairs(2.0, 50, seed=1)
    found = calibrations({"heldout": [*heldout, None], "labelled": [None, *labelled]})
    assert found["heldout"]["temperature"] == found["labelled"]["temperature"] == fit(heldout)
    assert (found["heldout"]["n"], found["heldout"]["unread"]) == (200, 1)
    assert (found["labelled"]["n"], found["labelled"]["unread"]) == (50, 1)
    assert found["heldout"]["log_loss_after"] < found["heldout"]["log_loss_before"]
    assert set(found["labelled"]) == {
        "temperature", "n", "unread", "log_loss_before", "log_loss_after",
        "ece_before", "ece_after", "brier_before", "brier_after",
    }  # fmt: skip


def test_too_few_pairs_are_no_calibration() -> None:
    few = [1.0] * (FEWEST - 1)
    assert calibrations({"heldout": [*few, None]}) == {}
    assert calibrations({"labelled": [1.0] * 99}) == {}
    assert set(calibrations({"heldout": [*few, -1.0], "labelled": [None]})) == {"heldout"}
