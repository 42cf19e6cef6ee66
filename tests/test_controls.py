"""Which arms a recipe has, and the table of their means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftaught.contracts import Recipe
from selftaught.controls import arms, known, means
from selftaught.registry import merge

BASE: dict[str, Any] = {"iterations": 4, "pair": {"instructions": 100}, "train": {"steps": 50}}


def made(**changes: Any) -> dict[str, Recipe]:
    """Arm -> its whole recipe; every one is valid."""
    raw = merge(BASE, changes)
    found = arms(Recipe.model_validate(raw))
    return {arm: Recipe.model_validate(merge(raw, changed)) for arm, changed in found.items()}


def test_a_control_differs_from_the_loop_in_one_thing() -> None:
    found = made()
    assert list(found) == ["loop", "one round", "no labels", "random labels", "own majority"]
    loop = found["loop"].model_dump()
    for arm, label in (
        ("no labels", "none"),
        ("random labels", "random"),
        ("own majority", "majority"),
    ):
        assert found[arm].model_dump() == merge(loop, {"curate": {"label": label}})
    assert found["one round"].model_dump() == merge(
        loop, {"iterations": 1, "pair": {"instructions": 400}, "train": {"steps": 200}}
    )


def test_one_round_has_the_training_of_all_iterations() -> None:
    def one_round(**changes: Any) -> tuple[int, int | None, float | None]:
        recipe = made(**changes)["one round"]
        return recipe.pair.instructions, recipe.train.steps, recipe.train.epochs

    assert one_round(pair={"fresh": False}) == (100, 200, None)
    by_epochs = {"steps": None, "epochs": 2}
    assert one_round(train=by_epochs) == (400, None, 2), "an epoch has four times the examples"
    assert one_round(train=by_epochs, pair={"fresh": False}) == (100, None, 8)


def test_controls_of_a_recipe_that_stops_early_or_prefers_are_valid() -> None:
    found = made(judge={"need": "right", "quota": 9})
    assert found["one round"].judge.quota == 4 * 9 and found["random labels"].judge.need == "all"
    fixed = made(judge={"need": "right", "quota": 9}, pair={"fresh": False})
    assert fixed["one round"].judge.quota == 9, "every iteration judges the same pairs"
    assert "no labels" not in made(train={"objective": "sft_dpo"}), "nothing is wrong there"


def test_means_go_over_loop_seeds_and_say_how_much_of_the_error_is_gone() -> None:
    def run(*scores: float) -> list[dict[str, Any]]:
        return [{"strict_accuracy": s, "train_tokens": 1000 * i} for i, s in enumerate(scores)]

    head, rule, loop, one = means(
        {"loop/0": run(0.5, 0.6, 0.7), "loop/1": run(0.5, 0.7, 0.8), "one round/0": run(0.5, 0.45)}
    )
    assert head == (
        "| arm | loop seeds | seed | 1 | 2 | error falls by | tokens trained in all |"
    ) and rule.count("|") == head.count("|")
    assert loop == "| loop | 2 | 0.5000 | 0.6500 | 0.7500 | **50.0%** | 3,000 |"
    assert one == "| one round | 1 | 0.5000 | 0.4500 |  | **-10.0%** | 1,000 |"
    assert "**-**" in means({"loop/0": run(1.0, 1.0)})[-1] and len(means({})) == 2


def test_what_is_noted_is_not_made_again(tmp_path: Path) -> None:
    record = tmp_path / "ids.json"
    assert [known(record, "job", lambda id_=id_: id_) for id_ in ("a", "b")] == ["a", "a"]  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        known(record, "other", lambda: str(1 / 0))
    assert known(record, "other", lambda: "c") == "c"
