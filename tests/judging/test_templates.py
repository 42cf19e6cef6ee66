"""Templates are data: strict when loaded, literal when filled, hashed by content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selftaught.judging import (
    JudgeTemplate,
    ModifyTemplate,
    load_judge_template,
    load_modify_template,
    load_template,
    parse_template,
    template_names,
)

SEED_FORMATS = Path(__file__).parents[2] / "seeds/smallworld/templates.yaml"
GOOD: dict[str, Any] = {
    "name": "mine",
    "kind": "judge",
    "user": "Q {instruction}\n1 {response_a}\n2 {response_b}\nJSON: {}",
    "verdicts": {"A": "[[A]]", "B": "[[B]]"},
}


def judge(**changes: Any) -> JudgeTemplate:
    template = parse_template({**GOOD, **changes})
    assert isinstance(template, JudgeTemplate)
    return template


def test_every_shipped_template_loads() -> None:
    assert {"mt-bench", "criteria", "modify", "smallworld", "smallworld-modify"} <= set(
        template_names()
    )
    for name in template_names():
        assert load_template(name).name == name


def test_seed_formats_equal_the_shipped_templates() -> None:
    """The seed was raised with seeds/smallworld/templates.yaml; a changed word would break it."""
    raised_with = yaml.safe_load(SEED_FORMATS.read_text())
    assert load_judge_template("smallworld").user == raised_with["judge"]
    assert load_modify_template("smallworld-modify").user == raised_with["modify"]
    assert load_judge_template("smallworld").system is None


@given(st.text(), st.text(), st.text())
def test_user_text_is_never_interpreted(instruction: str, a: str, b: str) -> None:
    shown = judge().render(instruction, a, b)
    assert shown == [{"role": "user", "content": f"Q {instruction}\n1 {a}\n2 {b}\nJSON: {{}}"}]


def test_placeholders_in_responses_stay() -> None:
    shown = judge().render("{response_b}", "{instruction}{0}", "\\1 {x!r}")[0]["content"]
    assert shown == "Q {response_b}\n1 {instruction}{0}\n2 \\1 {x!r}\nJSON: {}"


def test_orders_swap_the_responses_and_nothing_else() -> None:
    pair = {"instruction": "i", "chosen": "c", "rejected": "r"}
    assert judge().show(pair, "AB") == judge().render("i", "c", "r")
    assert judge().show(pair, "BA") == judge().render("i", "r", "c")


def test_system_message_comes_first() -> None:
    assert [m["role"] for m in judge(system="S").render("i", "a", "b")] == ["system", "user"]


def test_hash_follows_content_not_name() -> None:
    assert judge(name="other").sha256 == judge().sha256
    assert judge(system="S").sha256 != judge().sha256
    assert judge(user=GOOD["user"] + "!").sha256 != judge().sha256
    assert judge(verdicts={"A": "[[A]]", "B": "[[B]]", "tie": "[[C]]"}).sha256 != judge().sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "{instruction} {response_a}"},
        {"user": GOOD["user"] + "{reference}"},
        {"verdicts": {"A": "[[A]]"}},
        {"verdicts": {"A": "X", "B": "XX"}},
        {"verdicts": {"A": "X", "B": "X"}},
        {"verdicts": {"A": " ", "B": "X"}},
        {"verdicts": {"A": "X", "B": "Y", "draw": "Z"}},
        {"kind": "other"},
        {"name": "../etc"},
        {"surprise": 1},
    ],
)
def test_bad_templates_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse_template({**GOOD, **changes})


def test_unknown_names_and_wrong_kinds() -> None:
    for load, name in (
        (load_template, "nope"),
        (load_template, "../templates/modify"),
        (load_judge_template, "modify"),
        (load_modify_template, "mt-bench"),
    ):
        with pytest.raises(KeyError):
            load(name)


MARKED = ModifyTemplate(name="m", user="{instruction}", start="<m>", end="</m>")


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("<m> new one </m>", "new one"),
        ("Sure.\n<m>\nnew\none\n</m>\n", "new\none"),
        ("new one", None),
        ("<m>new one", None),
        ("new one</m>", None),
        ("</m>new one<m>", None),
        ("<m></m>", None),
        ("<m>a</m><m>b</m>", None),
        ("<m>a<m>b</m>", None),
        ("<m>a</m></m>", None),
    ],
)
def test_modified_instruction_stands_between_its_marks(reply: str, found: str | None) -> None:
    assert MARKED.read_instruction(reply) == found


def test_without_marks_the_whole_reply_is_the_instruction() -> None:
    template = load_modify_template("smallworld-modify")
    assert template.read_instruction(" Sort these letters: b a ") == "Sort these letters: b a"
    assert template.read_instruction(" \n") is None


def test_marks_come_in_pairs() -> None:
    with pytest.raises(ValidationError):
        ModifyTemplate(name="m", user="{instruction}", start="<m>")
