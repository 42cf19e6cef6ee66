"""A final answer is right, wrong, or not decided: only clear cases may label a pair."""

from __future__ import annotations

import pytest

from services.generator.verify import meets


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("6 * 7 is 42.", "42"),
        ("Six times seven.\n#### 42", "First 6, then 7.\n#### 42"),
        ("Thus \\boxed{42}, since 6 * 7.", "\\boxed{42}"),
        ("The answer is 42. Or was it? The answer is: 42", "42"),
        ("It costs $1,200.00.", "1200"),
        ("x = -3", "-3"),
        ("0.5", "1/2"),
        ("50%", "50"),
        ("\\boxed{\\frac{3}{4}}", "$\\boxed{\\frac{3}{4}}$"),
        ("Paris", "paris."),
        ("I looked it up. The answer is **Paris**.", "Paris"),
        ("Answer: (B)", "B"),
    ],
)
def test_right(response: str, reference: str) -> None:
    assert meets(response, reference) is True


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("6 * 7 is 41.", "42"),
        ("#### 41", "#### 42"),
        ("3", "-3"),
        ("420", "42"),
        ("4.2", "42"),
        ("Lyon", "Paris"),
        ("Answer: C", "B"),
        ("\\boxed{\\frac{3}{5}}", "\\boxed{\\frac{3}{4}}"),
    ],
)
def test_wrong(response: str, reference: str) -> None:
    assert meets(response, reference) is False


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("I do not know.", "42"),
        ("42 or 41", "42"),
        ("The capital is not Paris", "Paris"),
        ("", "Paris"),
        ("...", "Paris"),
        ("Paris", " "),
    ],
)
def test_undecided(response: str, reference: str) -> None:
    assert meets(response, reference) is None
