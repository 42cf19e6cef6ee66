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
    Label,
    LabelTemplate,
    Modification,
    ModifyTemplate,
    ScoreTemplate,
    in_context,
    load_judge_template,
    load_label_template,
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
    assert MARKED.read(reply) == (Modification(found) if found else None)


def test_without_marks_the_whole_reply_is_the_instruction() -> None:
    template = load_modify_template("smallworld-modify")
    said = template.read(" Sort these letters: b a ")
    assert said == Modification("Sort these letters: b a")
    assert template.read(" \n") is None


def test_marks_come_in_pairs() -> None:
    with pytest.raises(ValidationError):
        ModifyTemplate(name="m", user="{instruction}", start="<m>")


def test_a_conversation_stands_before_the_instruction_and_nothing_changes_without_one() -> None:
    pair = {"instruction": "And 3+3?", "chosen": "6", "rejected": "7"}
    context = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4"},
    ]
    shown = judge().show({**pair, "context": context}, "BA")[0]["content"]
    places = [shown.index(t) for t in ("System: Be brief.", "User: 2+2?", "Assistant: 4", "And 3")]
    assert places == sorted(places)
    assert shown.endswith("\n1 7\n2 6\nJSON: {}")
    plain = judge().render("And 3+3?", "6", "7")
    assert judge().show({**pair, "context": []}, "AB") == judge().show(pair, "AB") == plain
    assert in_context("x", None) == "x"


BOTH = load_modify_template("modify-and-answer")
START, MIDDLE, END = (str(mark) for mark in (BOTH.start, BOTH.end, BOTH.response_end))


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (f"{START}\nx'\n{MIDDLE}\ny\nz\n{END}\n", Modification("x'", "y\nz")),
        (f"Sure.\n{START} x' {MIDDLE} y {END}", Modification("x'", "y")),
        (f"{START}\nx'\n{MIDDLE}\ny", None),
        (f"{START}\nx'\n{END}", None),
        (f"{START}\n\n{MIDDLE}\ny\n{END}", None),
        (f"{START}\nx'\n{MIDDLE}\n{END}", None),
        (f"{MIDDLE}\nx'\n{START}\ny\n{END}", None),
        (f"{START}\nx'\n{MIDDLE}\ny\n{END}\n{START}", None),
    ],
)
def test_one_reply_holds_the_modified_instruction_and_its_response(
    reply: str, found: Modification | None
) -> None:
    assert BOTH.read(reply) == found


def test_a_one_call_template_shows_the_baseline_and_needs_all_marks() -> None:
    (message,) = BOTH.render("the request", "the {baseline}")
    assert "the request" in message["content"] and "the {baseline}" in message["content"]
    assert BOTH.one_call and not load_modify_template("modify").one_call
    for wrong in (
        {"user": "{instruction}", "response_end": "</r>"},
        {"user": "{instruction} {response}", "start": "<m>", "end": "</m>"},
    ):
        with pytest.raises(ValidationError):
            ModifyTemplate.model_validate({"name": "m", **wrong})


LABELS = load_label_template("label")


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Category: Math\nComplexity: 3\nLength: page", Label("math", 3, "page")),
        (
            "Here:\n  category: open QA  \nlength: sentence\ncomplexity: 5\n",
            Label("open qa", 5, "sentence"),
        ),
        ("Category: math\nComplexity: 3", None),
        ("Category: maths\nComplexity: 3\nLength: page", None),
        ("Category: math\nComplexity: 6\nLength: page", None),
        ("Category: math\nComplexity: 3 or 4\nLength: page", None),
        ("Category: math\nComplexity: 3\nLength: 2 pages", None),
        ("Category: math\nCategory: coding\nComplexity: 3\nLength: page", None),
        ("Category: math Complexity: 3 Length: page", None),
        ("", None),
    ],
)
def test_labels_are_read_strictly(reply: str, found: Label | None) -> None:
    assert LABELS.read(reply) == found


def test_label_templates_are_checked() -> None:
    good = {"name": "l", "user": "{instruction}", "categories": ["a", "b"]}
    assert LabelTemplate.model_validate(good).categories == ("a", "b")
    for wrong in ({"categories": ["a"]}, {"categories": ["a", "a"]}, {"categories": ["A", "b"]}):
        with pytest.raises(ValidationError):
            LabelTemplate.model_validate({**good, **wrong})
    with pytest.raises(KeyError):
        load_label_template("modify")


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Good.\n8", 8), ("Good.\n\n 7.5 \n\n", 7.5), ("0", 0), ("10", 10), ("10.00", 10),
        ("1\r\n", 1), ("", None), ("Good.", None), ("Score: 8", None), ("**8**", None),
        ("8/10", None), ("11", None), ("10.5", None), ("-1", None), ("8.", None), ("008", None),
        ("٨", None), ("1e1", None), ("8\nThat is all.", None), ("9 8", None),
    ],
)  # fmt: skip
def test_a_score_is_read_from_the_last_line_only(reply: str, score: float | None) -> None:
    template = load_template("score")
    assert isinstance(template, ScoreTemplate)
    assert template.read(reply) == score
    assert template.read(reply, finished=False) is None
