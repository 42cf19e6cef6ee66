"""Curation: what is kept, what is dropped and why, balanced and reproducible."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from selftaught.contracts import CurateSettings
from selftaught.jsonl import Shelf
from selftaught.judging import load_judge_template
from services.generator.curate import curate

TEMPLATE = load_judge_template("smallworld")
Votes = dict[tuple[int, str], str]
"""(pair, order) -> one letter for each sample: A, B, T (tie), U (unparsable)."""
NAMES = {"A": "A", "B": "B", "T": "tie", "U": "unparsable"}


def run(
    tmp_path: Path,
    votes: Votes,
    seed: int = 1,
    answers: dict[str, str] | None = None,
    preferences: list[dict[str, Any]] | None = None,
    fates: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> tuple[list[dict[str, Any]], dict[str, int], dict[str, Any]]:
    """Curate judgments spread over two files; `answers` replaces the answer that a text names;
    preference pairs and fates, if lists for them are given, are put there."""
    files = [tmp_path / "j0.jsonl", tmp_path / "j1.jsonl"]
    lines: list[list[str]] = [[], []]
    for (pair, order), letters in votes.items():
        for sample, letter in enumerate(letters):
            name = f"{pair}{order}{sample}"
            said = (answers or {}).get(name, "same")
            row = {
                "pair_id": f"p{pair}",
                "order": order,
                "sample": sample,
                "text": f"Answer: {said}. {name} [[{letter}]]",
                "verdict": NAMES[letter],
                "label": order[0],
                "completion_tokens": 10 + sample,
            }
            lines[pair % 2].append(json.dumps(row))
    for file, content in zip(files, lines, strict=True):
        file.write_text("".join(line + "\n" for line in content))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(
            json.dumps({"id": f"p{i}", "instruction": f"q{i}", "chosen": "c", "rejected": "r"})
            + "\n"
            for i in sorted({pair for pair, _ in votes})
        )
    )
    kept: list[dict[str, Any]] = []
    prefer = None if preferences is None else preferences.append
    wanted = CurateSettings(**settings)
    tell = None if fates is None else fates.append
    counts, report = curate(files, [pairs], TEMPLATE, wanted, seed, kept.append, prefer, tell)
    return kept, counts, report


def prefer(
    tmp_path: Path, votes: Votes, seed: int = 1, **given: Any
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The preference pairs, and the counts."""
    found: list[dict[str, Any]] = []
    _, counts, _ = run(tmp_path, votes, seed, preferences=found, **given)
    return found, counts


def sides(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(right, wrong) judgment of each pair, as pair + order + sample."""
    return [
        (
            names([{"completion": row["chosen"]}]).pop(),
            names([{"completion": row["rejected"]}]).pop(),
        )
        for row in found
    ]


def names(kept: list[dict[str, Any]]) -> set[str]:
    """pair + order + sample of each kept judgment."""
    return {row["completion"][0]["content"].split(". ")[1].split()[0] for row in kept}


def test_only_right_judgments_are_kept_and_shown_as_they_were_asked(tmp_path: Path) -> None:
    kept, counts, _ = run(tmp_path, {(0, "AB"): "BUA", (0, "BA"): "ATB"})
    assert names(kept) == {"0AB2", "0BA2"}
    by_order = {row["order"]: row for row in kept}
    assert by_order["AB"]["prompt"] == TEMPLATE.render("q0", "c", "r")
    assert by_order["BA"]["prompt"] == TEMPLATE.render("q0", "r", "c")
    assert by_order["BA"]["completion"] == [
        {"role": "assistant", "content": "Answer: same. 0BA2 [[B]]"}
    ]
    assert counts["judgments"] == 6
    assert (counts["inputs"], counts["judgments_right"], counts["kept"]) == (2, 2, 2)


def test_inputs_without_a_right_judgment_are_dropped(tmp_path: Path) -> None:
    votes = {(0, "AB"): "BBT", (0, "BA"): "BBB", (1, "AB"): "AAA", (1, "BA"): "UUU"}
    kept, counts, _ = run(tmp_path, votes)
    assert counts["dropped_none_right"] == 2
    assert {(row["pair_id"], row["order"]) for row in kept} == {("p0", "BA"), ("p1", "AB")}


def test_labels_are_balanced(tmp_path: Path) -> None:
    votes: Votes = {(i, "AB"): "AAA" for i in range(10)} | {(i, "BA"): "BBB" for i in range(4)}
    kept, counts, _ = run(tmp_path, votes)
    assert Counter(row["label"] for row in kept) == {"A": 4, "B": 4}
    assert (counts["kept_a"], counts["kept_b"], counts["dropped_balance"]) == (4, 4, 6)
    everything, counts, _ = run(tmp_path, votes, balance=False)
    assert len(everything) == 14
    assert counts.get("dropped_balance", 0) == 0


def test_one_of_several_at_random_by_seed(tmp_path: Path) -> None:
    votes: Votes = {(i, order): order[0] * 8 for i in range(20) for order in ("AB", "BA")}
    kept, _, _ = run(tmp_path, votes)
    assert len(kept) == 40
    chosen = {name[-1] for name in names(kept)}
    assert len(chosen) > 4  # not always the first
    again, _, _ = run(tmp_path, votes)
    assert again == kept
    other, _, _ = run(tmp_path, votes, seed=2)
    assert names(other) != names(kept)
    several, _, _ = run(tmp_path, votes, per_input=3)
    assert len(several) == len(names(several)) == 120


def test_the_order_of_files_and_rows_is_forgotten(tmp_path: Path) -> None:
    votes: Votes = {(i, order): order[0] * 3 for i in range(9) for order in ("AB", "BA")}
    forward, _, _ = run(tmp_path, votes)
    backward, _, _ = run(tmp_path, dict(reversed(votes.items())))
    assert forward == backward
    assert [row["pair_id"] for row in forward] != sorted(row["pair_id"] for row in forward)


def test_min_share(tmp_path: Path) -> None:
    votes = {(0, "AB"): "ABBB", (0, "BA"): "BBAA", (1, "AB"): "AAUB"}
    kept, counts, _ = run(tmp_path, votes, min_share=0.5, balance=False)
    assert {(r["pair_id"], r["order"]) for r in kept} == {("p0", "BA"), ("p1", "AB")}
    assert counts["dropped_min_share"] == 1


def test_both_orders(tmp_path: Path) -> None:
    votes = {(0, "AB"): "AA", (0, "BA"): "AA", (1, "AB"): "AB", (1, "BA"): "AB"}
    kept, counts, _ = run(tmp_path, votes, both_orders=True)
    assert {row["pair_id"] for row in kept} == {"p1"}
    assert counts["dropped_other_order"] == 1
    assert counts["dropped_none_right"] == 1


def test_agree_keeps_judgments_that_reason_from_the_same_answer(tmp_path: Path) -> None:
    votes: Votes = {(i, order): order[0] * 3 for i in (0, 1) for order in ("AB", "BA")}
    answers = {"0AB0": "x", "0AB1": "y", "0AB2": "z", "0BA0": "y", "0BA1": "w", "0BA2": "w"}
    answers |= {f"1AB{i}": "here" for i in range(3)} | {f"1BA{i}": "there" for i in range(3)}
    for seed in range(5):
        kept, counts, _ = run(tmp_path, votes, seed, answers, both_orders=True, agree=True)
        assert names(kept) == {"0AB1", "0BA0"}
        assert counts["dropped_disagree"] == 2


def test_agree_takes_the_same_answer_on_both_sides(tmp_path: Path) -> None:
    votes: Votes = {(i, order): order[0] * 2 for i in range(12) for order in ("AB", "BA")}
    answers = {
        f"{i}{order}{s}": "xy"[s] for i in range(12) for order in ("AB", "BA") for s in (0, 1)
    }
    kept, _, _ = run(tmp_path, votes, 1, answers, both_orders=True, agree=True)
    said = {}
    for row in kept:
        answer = row["completion"][0]["content"].split(". ")[0]
        assert said.setdefault(row["pair_id"], answer) == answer
    assert set(said.values()) == {"Answer: x", "Answer: y"}


def test_control_majority_follows_the_judge_not_the_construction(tmp_path: Path) -> None:
    votes = {(0, "AB"): "BBA", (0, "BA"): "AAB", (1, "AB"): "AABB", (1, "BA"): "TTB"}
    kept, counts, _ = run(tmp_path, votes, label="majority")
    assert {(r["order"], r["label"]) for r in kept} == {("AB", "B"), ("BA", "A")}
    assert counts["dropped_no_label"] == 2


def test_control_random_labels_are_seeded_and_independent_of_the_truth(tmp_path: Path) -> None:
    votes: Votes = {(i, order): "AABB" for i in range(100) for order in ("AB", "BA")}
    kept, _, _ = run(tmp_path, votes, label="random", balance=False)
    right = sum(row["label"] == row["order"][0] for row in kept)
    assert len(kept) == 200
    assert 70 < right < 130
    assert run(tmp_path, votes, label="random", balance=False)[0] == kept


def test_control_none_lets_every_verdict_pass_as_its_own_label(tmp_path: Path) -> None:
    votes = {(0, "AB"): "B", (0, "BA"): "A", (1, "AB"): "TU", (2, "AB"): "AU", (2, "BA"): "T"}
    kept, counts, _ = run(tmp_path, votes, label="none", balance=False)
    said = {(row["pair_id"], row["order"]): row["label"] for row in kept}
    assert said == {("p0", "AB"): "B", ("p0", "BA"): "A", ("p2", "AB"): "A"}
    assert counts["judgments_right"] == 3 and counts["dropped_none_right"] == 2


def test_report_of_lengths(tmp_path: Path) -> None:
    _, _, report = run(tmp_path, {(0, "AB"): "BBA", (0, "BA"): "BAA"})
    assert report["mean_completion_tokens"] == {
        "all": 11.0,
        "kept": 11.0,
        "kept_a": 12.0,
        "kept_b": 10.0,
    }


def test_nothing_right_is_no_crash(tmp_path: Path) -> None:
    kept, counts, report = run(tmp_path, {(0, "AB"): "UU", (0, "BA"): "AT"})
    assert kept == []
    assert counts["kept"] == 0
    assert report["mean_completion_tokens"]["kept"] is None


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_one_sided_data_cannot_be_balanced(tmp_path: Path, order: str) -> None:
    kept, counts, _ = run(tmp_path, {(0, order): order[0]})
    assert (kept, counts["dropped_balance"]) == ([], 1)


MIXED: Votes = {(i, order): "AABB" for i in range(20) for order in ("AB", "BA")}


def test_preferences_set_a_right_judgment_beside_a_wrong_one_of_the_same_input(
    tmp_path: Path,
) -> None:
    found, counts = prefer(tmp_path, {(0, "AB"): "BUAT", (0, "BA"): "ATB"})
    assert set(sides(found)) == {("0AB2", "0AB0"), ("0BA2", "0BA0")}
    row = next(row for row in found if row["order"] == "BA")
    assert (row["pair_id"], row["label"]) == ("p0", "B")
    assert row["prompt"] == TEMPLATE.render("q0", "r", "c")
    assert row["chosen"] == [{"role": "assistant", "content": "Answer: same. 0BA2 [[B]]"}]
    assert row["rejected"] == [{"role": "assistant", "content": "Answer: same. 0BA0 [[A]]"}]
    assert list(row) == ["pair_id", "order", "label", "prompt", "chosen", "rejected"]
    assert counts["preference_pairs"] == 2


def test_ties_and_unparsable_judgments_are_never_rejected(tmp_path: Path) -> None:
    votes = {(0, "AB"): "ATUU", (0, "BA"): "BA", (1, "AB"): "AB"}
    found, counts = prefer(tmp_path, votes)
    assert set(sides(found)) == {("0BA0", "0BA1"), ("1AB0", "1AB1")}
    assert counts["dropped_none_wrong"] == 1


def test_asking_for_preferences_changes_no_training_row(tmp_path: Path) -> None:
    for settings in (
        {},
        {"per_input": 2},
        {"both_orders": True, "agree": True},
        {"min_share": 0.6},
    ):
        plain = run(tmp_path, MIXED, **settings)
        asked = run(tmp_path, MIXED, preferences=[], **settings)
        assert asked[0] == plain[0]
        assert asked[2] == plain[2]
        assert plain[1].items() <= asked[1].items()
        assert not any("preference" in name for name in plain[1])


def test_preferences_are_several_per_input_all_different_and_follow_the_seed(
    tmp_path: Path,
) -> None:
    one, _ = prefer(tmp_path, MIXED)
    assert len(one) == 40
    assert len(set(sides(one))) == 40
    assert {right[-1] + wrong[-1] for right, wrong in sides(one)} > {"02", "13"}  # not always one
    three, counts = prefer(tmp_path, MIXED, per_input=3)
    assert len(three) == len(set(sides(three))) == counts["preference_pairs"] == 120
    every, _ = prefer(tmp_path, MIXED, per_input=9)
    assert len(every) == 40 * 4  # two right, two wrong: no more than there are
    assert prefer(tmp_path, dict(reversed(MIXED.items())))[0] == one
    assert sides(prefer(tmp_path, MIXED, seed=2)[0]) != sides(one)


def test_preferences_are_balanced(tmp_path: Path) -> None:
    votes: Votes = {(i, "AB"): "AB" for i in range(9)} | {(i, "BA"): "AB" for i in range(4)}
    found, counts = prefer(tmp_path, votes)
    assert Counter(row["label"] for row in found) == {"A": 4, "B": 4}
    assert (counts["preferences_a"], counts["preferences_b"]) == (4, 4)
    assert counts["dropped_preference_balance"] == 5
    everything, counts = prefer(tmp_path, votes, balance=False)
    assert len(everything) == counts["preference_pairs"] == 13


def test_filters_of_kept_judgments_hold_for_the_right_side_of_preferences(tmp_path: Path) -> None:
    votes = {(0, "AB"): "ABBB", (0, "BA"): "BBBA", (1, "AB"): "AB", (1, "BA"): "AA"}
    found, _ = prefer(tmp_path, votes, min_share=0.5, balance=False)
    assert {right[:3] for right, _ in sides(found)} == {"0BA", "1AB"}
    found, _ = prefer(tmp_path, votes, both_orders=True)
    assert {row["pair_id"] for row in found} == {"p0"}
    said = {"0AB0": "x", "0BA0": "y", "0BA1": "x", "0BA2": "z"}
    for seed in range(5):
        found, _ = prefer(tmp_path, votes, seed, answers=said, both_orders=True, agree=True)
        assert {right for right, _ in sides(found)} == {"0AB0", "0BA1"}


def test_preferences_of_a_control_go_by_its_label(tmp_path: Path) -> None:
    found, _ = prefer(tmp_path, {(0, "AB"): "BBA", (0, "BA"): "AAB"}, label="majority")
    assert {(row["order"], row["label"]) for row in found} == {("AB", "B"), ("BA", "A")}
    assert {wrong for _, wrong in sides(found)} == {"0AB2", "0BA2"}


def fates(tmp_path: Path, votes: Votes, **given: Any) -> dict[str, dict[str, Any]]:
    """What became of the judgments, by pair."""
    told: list[dict[str, Any]] = []
    run(tmp_path, votes, fates=told, **given)
    return {row["id"]: row for row in told}


def test_every_judgment_is_told_its_fate(tmp_path: Path) -> None:
    votes = {(2, "AB"): "ABTU", (2, "BA"): "BAAA", (1, "AB"): "BBTU", (1, "BA"): "BBBB"}
    found = fates(tmp_path, votes)
    assert list(found) == ["p1", "p2"]  # by id
    orders = {f"{name}{one['order']}": one for name, row in found.items() for one in row["orders"]}
    assert orders["p1AB"]["fates"] == ["wrong", "wrong", "tie", "unparsable"]
    assert orders["p1AB"]["verdicts"] == ["B", "B", "tie", "unparsable"]
    # Of the three inputs with a right judgment two have label B: one of them is too many.
    assert orders["p2AB"]["fates"] == ["kept", "wrong", "tie", "unparsable"]
    drawn = Counter(orders["p1BA"]["fates"]) + Counter(orders["p2BA"]["fates"])
    assert drawn == {"not_drawn": 3, "wrong": 3, "kept": 1, "balance": 1}
    assert set(found["p1"]["outcomes"]) >= {"none_right", "unparsable"}
    assert "flipped" in found["p1"]["outcomes"]  # B in both orders
    assert "none_right" not in found["p2"]["outcomes"]


def test_fates_say_where_the_texts_stand(tmp_path: Path) -> None:
    found = fates(tmp_path, {(i, order): "ABA" for i in range(4) for order in ("AB", "BA")})
    with Shelf([tmp_path / "j0.jsonl", tmp_path / "j1.jsonl"]) as judgments:
        for name, row in found.items():
            for one in row["orders"]:
                first = judgments.fetch(one["at"])
                assert (first["pair_id"], first["order"], first["sample"]) == (
                    name,
                    one["order"],
                    0,
                )
    with Shelf([tmp_path / "pairs.jsonl"]) as pairs:
        assert all(pairs.fetch(row["pair"])["id"] == name for name, row in found.items())


def test_a_judge_that_goes_by_place_is_told(tmp_path: Path) -> None:
    found = fates(tmp_path, {(0, "AB"): "AAB", (0, "BA"): "AAB", (1, "AB"): "AT", (1, "BA"): "A"})
    assert "flipped" in found["p0"]["outcomes"]
    assert "flipped" not in found["p1"]["outcomes"]  # a tie names neither


def test_fates_name_the_filter_that_dropped_an_input(tmp_path: Path) -> None:
    one_order = {(0, "AB"): "AB", (0, "BA"): "AA"}
    (ab, _) = fates(tmp_path, one_order, both_orders=True)["p0"]["orders"]
    assert ab["fates"] == ["other_order", "wrong"]
    (ab, _) = fates(tmp_path, one_order, min_share=0.6)["p0"]["orders"]
    assert ab["fates"] == ["min_share", "wrong"]
    (ab, ba) = fates(tmp_path, one_order, label="majority", balance=False)["p0"]["orders"]
    assert ab["fates"] == ["no_label", "no_label"] and sorted(ba["fates"]) == ["kept", "not_drawn"]


def test_fates_of_answers_that_must_agree(tmp_path: Path) -> None:
    votes = {(0, "AB"): "AA", (0, "BA"): "BB"}
    answers = {"0AB0": "x", "0AB1": "y", "0BA0": "x", "0BA1": "z"}
    settings = {"both_orders": True, "agree": True}
    (ab, ba) = fates(tmp_path, votes, answers=answers, **settings)["p0"]["orders"]
    assert ab["fates"] == ba["fates"] == ["kept", "other_answer"]
    answers["0BA0"] = "z"
    (ab, ba) = fates(tmp_path, votes, answers=answers, **settings)["p0"]["orders"]
    assert ab["fates"] == ba["fates"] == ["disagree", "disagree"]


def test_fates_name_the_judgments_of_preference_pairs(tmp_path: Path) -> None:
    told = fates(tmp_path, {(0, "AB"): "AB", (0, "BA"): "AB"}, preferences=[])["p0"]["orders"]
    assert [one["preferences"] for one in told] == [[(0, 1)], [(1, 0)]]
