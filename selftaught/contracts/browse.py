"""What people look at: rows of a dataset, and pairs with what was said of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import example

Outcome = Literal["kept", "dropped", "none_right", "unparsable", "flipped"]
Said = Literal["A", "B", "tie", "unparsable"]
Fate = Literal[
    "kept",
    "wrong",
    "tie",
    "unparsable",
    "no_label",
    "min_share",
    "other_order",
    "disagree",
    "other_answer",
    "not_drawn",
    "balance",
]
"""kept: it is a training example. Its verdict was not the label: wrong, tie, unparsable; or there
was no label for its input (majority): no_label. Right, but its input was dropped: min_share,
other_order, disagree. Right, but reasons from another answer than the one that was drawn:
other_answer. Right, but others of its input were drawn: not_drawn. Drawn, but its label had more
than the other: balance."""

_OUTCOMES = (
    "kept: a judgment of it is a training example; else dropped. none_right: in one of its orders "
    "no judgment was right. unparsable: a judgment could not be read. flipped: the majorities of "
    "the two orders name different responses."
)


class DatasetRow(BaseModel):
    """A row of a dataset."""

    model_config = example(
        at=0, row={"id": "row-1", "instruction": "Reverse these letters: k f a b"}
    )

    at: int = Field(description="Where it stands, in bytes; the cursor of this list.")
    row: dict[str, Any] = Field(description="As it was kept.")


class OrderSummary(BaseModel):
    """The judgments of a pair in one order."""

    order: Literal["AB", "BA"] = Field(description="AB: the better response was shown as A.")
    verdict: Said = Field(description="Of the majority, in the letters as shown.")
    fates: dict[Fate, int] = Field(description="What became of the judgments.")


class PairListed(BaseModel):
    """A pair of an iteration, in short."""

    model_config = example(
        id="row-17",
        instruction="Reverse these letters: k f a b",
        outcomes=["kept"],
        orders=[
            {"order": "AB", "verdict": "A", "fates": {"kept": 1, "not_drawn": 2}},
            {"order": "BA", "verdict": "A", "fates": {"wrong": 2, "not_drawn": 1}},
        ],
    )

    id: str = Field(description="Of the row that it was made from.")
    instruction: str = Field(description="Its first 300 characters.")
    outcomes: list[Outcome] = Field(description=_OUTCOMES)
    orders: list[OrderSummary] = Field(description="Both, if both were judged.")


class PairsPage(BaseModel):
    """Pairs by id. `next` may be behind the last one: a page reads only so much to find pairs."""

    model_config = example(
        data=PairListed.model_json_schema()["examples"], has_more=True, next="row-17"
    )

    data: list[PairListed] = Field(description="In the order of their ids.")
    has_more: bool = Field(description="Another page may follow, also if this one is empty.")
    next: str | None = Field(description="What to pass as `after` for the next page.")


class JudgmentOut(BaseModel):
    """What the judge said of a pair once."""

    sample: int = Field(description="From 0.")
    verdict: Said = Field(description="In the letters as shown.")
    fate: Fate = Field(
        description="kept: a training example. wrong, tie, unparsable: not the label; no_label: "
        "there was none. Right, but its input was dropped: min_share, other_order, disagree; it "
        "reasons from another answer than the one drawn: other_answer; others of its input were "
        "drawn: not_drawn. Drawn, but its label had more than the other: balance."
    )
    preferred: Literal["chosen", "rejected"] | None = Field(
        description="Its place in preference pairs."
    )
    text: str = Field(description="The reasoning with its verdict, as written.")
    finish_reason: str | None = Field(description="'length': it was cut off.")
    completion_tokens: int = Field(description="Its length.")


class JudgedOrder(BaseModel):
    """A pair in one order."""

    order: Literal["AB", "BA"] = Field(description="AB: the better response was shown as A.")
    label: Literal["A", "B"] = Field(description="Where the better response stood.")
    verdict: Said = Field(description="Of the majority, in the letters as shown.")
    judgments: list[JudgmentOut] = Field(description="By sample.")


class PairOut(BaseModel):
    """A pair with every judgment of it, and what became of each."""

    model_config = example(
        job="job_019ac5a1c3d08f2a5b7c9d0e",
        iteration=1,
        id="row-17",
        context=[],
        instruction="Reverse these letters: k f a b",
        modified_instruction="Sort these letters: k f a b",
        chosen="b a f k",
        rejected="a b f k",
        construction="modified",
        judge="tour:0",
        outcomes=["kept"],
        orders=[
            {
                "order": "AB",
                "label": "A",
                "verdict": "A",
                "judgments": [
                    {
                        "sample": 0,
                        "verdict": "A",
                        "fate": "kept",
                        "preferred": None,
                        "text": "Answer: b a f k. A: b b a a f f k k good. B: a b bad. [[A]]",
                        "finish_reason": "stop",
                        "completion_tokens": 24,
                    }
                ],
            }
        ],
    )

    job: str = Field(description="The job's id.")
    iteration: int = Field(description="The iteration's number.")
    id: str = Field(description="Of the row that it was made from.")
    context: list[dict[str, str]] = Field(description="The conversation before the instruction.")
    instruction: str = Field(description="What both responses are judged by.")
    modified_instruction: str | None = Field(
        description="What the worse response answers; none of verified pairs."
    )
    chosen: str = Field(description="The better response, by construction.")
    rejected: str = Field(description="The worse one.")
    construction: Literal["modified", "verified"] = Field(
        description="modified: the worse response answers the modified instruction. verified: the "
        "better one meets the row's reference answer, the worse one does not."
    )
    judge: str | None = Field(description="The version that judged, name:number.")
    outcomes: list[Outcome] = Field(description=_OUTCOMES)
    orders: list[JudgedOrder] = Field(description="Both, if both were judged.")
