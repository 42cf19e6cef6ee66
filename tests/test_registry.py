"""Recipes and names: what a job may ask for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from selftaught.registry import UnknownName, load_recipe, merge, recipe_names, resolve_recipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base_model = load_recipe(name)["base_model"]
    if base_model != "smallworld":
        with pytest.raises(UnknownName, match=base_model):
            resolve_recipe(name, {})
    here = {"base_model": "smallworld", "generator": None}
    assert resolve_recipe(name, here).name == name


def test_overrides_reach_one_setting_and_leave_its_neighbours() -> None:
    recipe = resolve_recipe("quickstart", {"train": {"steps": 7}, "seed": 3})
    default = resolve_recipe("quickstart", {})
    assert (recipe.train.steps, recipe.seed) == (7, 3)
    assert recipe.train.learning_rate == default.train.learning_rate
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"base_model": "nope"}, "nope"),
        ({"base_model": "../../etc"}, "etc"),
        ({"inference": "nowhere"}, "nowhere"),
        ({"judge": {"template": "nothing"}}, "nothing"),
        ({"pair": {"template": "mt-bench"}}, "mt-bench"),
        ({"select": {"label": {"template": "modify"}}}, "unknown label template 'modify'"),
        ({"select": {"quotas": {"categories": {"maths": 5}}}}, "unknown category 'maths'"),
    ],
)
@pytest.mark.usefixtures("database")  # templates may be uploaded ones
def test_unknown_names_are_named(overrides: dict[str, object], named: str) -> None:
    with pytest.raises(UnknownName, match=named):
        resolve_recipe("quickstart", overrides)


def test_a_misspelt_setting_is_an_error() -> None:
    with pytest.raises(ValidationError, match="learning_rte"):
        resolve_recipe("quickstart", {"train": {"learning_rte": 1}})


def test_preferences_need_a_label_that_can_be_wrong() -> None:
    for overrides in ({"curate": {"preferences": True}}, {"train": {"objective": "sft_dpo"}}):
        assert resolve_recipe("quickstart", overrides).wants_preferences
        overrides["curate"] = {**overrides.get("curate", {}), "label": "none"}
        with pytest.raises(ValidationError, match="no judgment is wrong"):
            resolve_recipe("quickstart", overrides)
    assert not resolve_recipe("quickstart", {}).wants_preferences


def test_two_rounds_is_the_quickstart_but_for_its_rounds() -> None:
    """As much data and training in all: the proof compares the two."""
    changed = {
        "name": "two-rounds",
        "iterations": 2,
        "pair": {"instructions": 6750},
        "train": {"start": "previous", "steps": 1750},
    }
    assert load_recipe("two-rounds") == merge(load_recipe("quickstart"), changed)
