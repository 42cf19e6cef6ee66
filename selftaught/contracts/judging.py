"""Questions to a judge, and its answers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from selftaught.contracts.base import Contract, example

ALLOW_TIE = (
    "False: A or B whenever anything could be read. What would be a tie goes to the response with "
    "the higher probability over both orders; without one, to that with more votes over both "
    "orders; if they are level, to the one whose hash is smaller."
)
Named = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=100_000)]
LONGEST_CONVERSATION = 400_000
"""Characters of all messages of a conversation together."""


class ChatMessage(Contract):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"] = Field(description="Who says it.")
    content: Text = Field(description="What is said.")


class Instructed(Contract):
    """What is judged: answers to an instruction, or to the conversation that ends with it."""

    instruction: Annotated[str, Field(min_length=1, max_length=100_000)] | None = Field(
        None, description="What was asked; this or `messages`."
    )
    messages: list[ChatMessage] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="In place of `instruction`; a user's last. Together at most "
        f"{LONGEST_CONVERSATION:,} characters.",
    )
    reference: Text | None = Field(None, description="An answer that is known to be good.")
    rubric: Text | None = Field(None, description="What a good response must do.")

    @model_validator(mode="after")
    def _one_instruction(self) -> Self:
        if (self.instruction is None) == (self.messages is None):
            raise ValueError("instruction or messages: exactly one")
        if self.messages and self.messages[-1].role != "user":
            raise ValueError("messages: the last one must be a user's")
        return self

    @model_validator(mode="after")
    def _conversation_is_not_too_long(self) -> Self:
        characters = sum(len(message.content) for message in self.messages or ())
        if characters > LONGEST_CONVERSATION:
            raise ValueError(
                f"messages: {characters:,} characters together; "
                f"at most {LONGEST_CONVERSATION:,} are allowed"
            )
        return self


class Asked(Instructed):
    """What every question to a judge has."""

    model: Named | None = Field(
        None,
        description="name, name:alias or name:number; default: what the header Selftaught-Model "
        "says, or else the only model's `latest`.",
    )
    votes: int = Field(1, ge=1, le=64, description="1 is greedy; more are sampled and counted.")
    explain: bool = Field(False, description="Answer with what the model wrote, too.")
    timeout_seconds: float = Field(
        120, gt=0, le=600, description="After this long the answer is 504 and its work ends."
    )
    cache: bool | None = Field(
        None, description="May a former, equal answer be given? Default: only for one vote."
    )


class JudgeIn(Asked):
    """POST /judge: which of two responses is better?"""

    model_config = example(
        instruction="Swap the first and the last letter: m f q",
        response_a="q f m",
        response_b="q m",
        explain=True,
    )

    response_a: Text = Field(description="The one called A in the answer.")
    response_b: Text = Field(description="The one called B in the answer.")
    template: Named | None = Field(
        None, description="Judge template; default: the one that the version was trained with."
    )
    both_orders: bool = Field(True, description="Judge in both orders; disagreement is a tie.")
    allow_tie: bool = Field(True, description=ALLOW_TIE)
    stream: bool = Field(
        False,
        description="Answer with Server-Sent Events: the reasoning as it is written, then the "
        "verdict. For one vote.",
    )

    @model_validator(mode="after")
    def _one_vote_is_streamed(self) -> Self:
        if self.stream and self.votes > 1:
            raise ValueError("stream: for one vote only")
        return self


class ScoreIn(Asked):
    """POST /v1/score: how good is one response?"""

    model_config = example(
        instruction="Name a prime between 20 and 30.",
        response="23 is a prime between 20 and 30.",
        rubric="Names one number, and says nothing that is wrong.",
        votes=4,
    )

    response: Text = Field(description="What is scored.")
    template: Named = Field("score", description="Score template by name.")


class RankIn(Asked):
    """POST /v1/rank: from the best response to the worst."""

    model_config = example(
        instruction="Reverse these letters: k f a b",
        responses=["b a f k", "b a k f", "b a"],
    )

    responses: list[Text] = Field(min_length=2, max_length=64, description="In any order.")
    template: Named | None = Field(
        None, description="Judge template; default: the one that the version was trained with."
    )
    both_orders: bool = Field(True, description="Judge in both orders; disagreement is a tie.")
    allow_tie: bool = Field(True, description=ALLOW_TIE)
    method: Literal["tournament", "sort"] = Field(
        "tournament",
        description="'tournament': a Bradley-Terry fit to many comparisons, with intervals. "
        "'sort': a merge sort, the fewest comparisons, trusting each of them.",
    )
    comparisons: int | None = Field(
        None,
        ge=1,
        le=2016,
        description="Of a tournament, about; at least one for each response. Default: all pairs of "
        "up to 8 responses, else 4 for each response.",
    )

    def pair(self, one: int, other: int) -> JudgeIn:
        """The comparison of two of the responses, by place."""
        shared = self.model_dump(exclude={"responses", "method", "comparisons", "explain"})
        return JudgeIn(**shared, response_a=self.responses[one], response_b=self.responses[other])


class VerdictProbability(BaseModel):
    """Of each verdict, by the model's token alternatives where it wrote the verdict; in the
    request's letters; they sum to 1."""

    a: float = Field(description="That A is better.")
    b: float = Field(description="That B is better.")
    tie: float = Field(description="That the model calls it a tie; 0 where none is allowed.")


class PairProbability(VerdictProbability):
    """Of both orders together: their mean log-odds of A against B, and their mean of ties."""

    calibrated: bool = Field(
        description="Whether the odds of A against B were corrected by the version's temperature. "
        "True for one vote in both orders with the template that it was validated with."
    )


class OrderVerdict(BaseModel):
    """What the judge says of the pair in one order."""

    order: Literal["AB", "BA"] = Field(description="BA: the responses were shown swapped.")
    verdict: Literal["A", "B", "tie", "unparsable"] = Field(description="In the request's letters.")
    share: float = Field(description="Share of this order's votes for the verdict.")
    probability: VerdictProbability | None = Field(
        None,
        description="As the model gave it: mean over the votes. Null if the engine gives none.",
    )
    reasoning: str | None = Field(
        None, description="If asked to explain: the text of one vote with this verdict, as written."
    )


class Latency(BaseModel):
    """Seconds inside the evaluator."""

    total: float = Field(description="From the call to its answer.")
    queue: float = Field(description="Until the engine began, or a server was ready.")
    engine: float = Field(description="In the engine; 0 if the answer was there already.")


class Ruling(BaseModel):
    """What a judge says of a pair."""

    verdict: Literal["A", "B", "tie", "unparsable"] = Field(
        description="Which response is better; unparsable if an order could not be read (with "
        "allow_tie false: neither)."
    )
    confidence: float = Field(
        description="Share of all votes, over both orders, for the verdict; of unparsable, those "
        "that could not be read."
    )
    probability: PairProbability | None = Field(
        description="How likely each verdict is; null if the engine does not tell it, or an order "
        "could not be read."
    )
    orders_agree: bool | None = Field(description="None when one order was judged.")
    orders: list[OrderVerdict] = Field(description="The verdict of each order that was judged.")
    parse_failures: int = Field(description="Votes without a readable verdict; they are no ties.")
    model: str = Field(description="Exact version that answered, name:number.")
    job: str | None = Field(description="The job that made this version.")
    template: str = Field(description="Name of the template that it was asked with.")
    template_sha256: str = Field(description="Of the template's content.")
    prompt_tokens: int = Field(description="Each order's prompt once.")
    completion_tokens: int = Field(description="Of all votes.")


class JudgeOut(Ruling):
    """A ruling, and how long it took."""

    model_config = example(
        id="vdt_019ac5a1c3d08f2a5b7c9d0e",
        canary=False,
        verdict="A",
        confidence=1.0,
        probability={"a": 0.95, "b": 0.04999, "tie": 0.00001, "calibrated": True},
        orders_agree=True,
        orders=[
            {
                "order": "AB",
                "verdict": "A",
                "share": 1.0,
                "probability": {"a": 0.99999, "b": 0.000002, "tie": 0.000008},
                "reasoning": "Answer: q f m. A: q q f f m m good. B: q q f m bad. [[A]]",
            },
            {
                "order": "BA",
                "verdict": "A",
                "share": 1.0,
                "probability": {"a": 0.99998, "b": 0.000004, "tie": 0.000016},
                "reasoning": "Answer: q f m. A: q q f m bad. B: q q f f m m good. [[B]]",
            },
        ],
        parse_failures=0,
        model="tour:1",
        job="job_019ac5a1c3d08f2a5b7c9d0e",
        template="smallworld",
        template_sha256="6a0bb712516522fc89a0f4c1457f6dc1695a09440ea0e0304fdf7d59b4e1e0dc",
        prompt_tokens=122,
        completion_tokens=58,
        cached=False,
        latency={"total": 0.071, "queue": 0.004, "engine": 0.066},
    )

    id: str = Field(description="This answer's own, under which the verdict log keeps it.")
    canary: bool = Field(False, description="A canary's version answered, not the alias's.")
    cached: bool = Field(description="A former, equal call's answer, of the same version.")
    latency: Latency = Field(description="Where the time went.")


class JudgeStart(BaseModel):
    """Event `start` of a streamed call."""

    model: str = Field(description="Exact version that answers, name:number.")
    template: str
    template_sha256: str
    orders: list[Literal["AB", "BA"]] = Field(description="The orders that are asked.")


class JudgeDelta(BaseModel):
    """Event `delta` of a streamed call."""

    order: Literal["AB", "BA"]
    text: str = Field(description="What follows the order's text so far.")


class JudgeRestart(BaseModel):
    """Event `restart` of a streamed call: the order's text so far counts no more."""

    order: Literal["AB", "BA"]


class ResponseScore(BaseModel):
    """How good one response is."""

    model_config = example(
        score=8.25,
        scores=[8.0, 9.0, 8.0, 8.0],
        parse_failures=0,
        reasoning=None,
        model="tour:1",
        job="job_019ac5a1c3d08f2a5b7c9d0e",
        template="score",
        template_sha256="63c5ce75df64564f21bb9c23d2f6144ac11373269eee51a5814526552b8f3105",
        prompt_tokens=148,
        completion_tokens=233,
        cached=False,
        latency={"total": 0.92, "queue": 0.01, "engine": 0.91},
    )

    score: float | None = Field(description="0 to 10: the mean of `scores`; null without any.")
    scores: list[float] = Field(description="Of the votes that could be read.")
    parse_failures: int = Field(description="Votes without a readable score.")
    reasoning: str | None = Field(None, description="If asked to explain: the first vote's text.")
    model: str = Field(description="Exact version that answered, name:number.")
    job: str | None = Field(description="The job that made this version.")
    template: str = Field(description="Name of the template that it was asked with.")
    template_sha256: str = Field(description="Of the template's content.")
    prompt_tokens: int = Field(description="Each prompt once.")
    completion_tokens: int = Field(description="Of all votes.")
    cached: bool = Field(description="A former, equal call's answer, of the same version.")
    latency: Latency = Field(description="Where the time went.")


class Ranked(BaseModel):
    """A response's place in a ranking."""

    response: int = Field(description="Place in the request's list, from 0.")
    rank: int = Field(description="From 1; equal ones have the same.")
    wins: int = Field(description="Comparisons in which it was better.")
    losses: int = Field(description="Comparisons in which it was worse.")
    ties: int = Field(description="Comparisons in which neither was better.")
    strength: float | None = Field(
        None, description="Tournament: log-odds of beating an average response (Bradley-Terry)."
    )
    ci95: tuple[float, float] | None = Field(None, description="Of `strength`.")


class Ranking(BaseModel):
    """Responses from the best to the worst, and what it cost to find out."""

    model_config = example(
        ranking=[
            {
                "response": 0,
                "rank": 1,
                "wins": 2,
                "losses": 0,
                "ties": 0,
                "strength": 2.83,
                "ci95": [-0.49, 6.14],
            },
            {
                "response": 1,
                "rank": 2,
                "wins": 1,
                "losses": 1,
                "ties": 0,
                "strength": 0.0,
                "ci95": [-2.93, 2.93],
            },
            {
                "response": 2,
                "rank": 3,
                "wins": 0,
                "losses": 2,
                "ties": 0,
                "strength": -2.83,
                "ci95": [-6.14, 0.49],
            },
        ],
        comparisons=3,
        unparsable=0,
        model="tour:1",
        job="job_019ac5a1c3d08f2a5b7c9d0e",
        template="smallworld",
        template_sha256="6a0bb712516522fc89a0f4c1457f6dc1695a09440ea0e0304fdf7d59b4e1e0dc",
        prompt_tokens=366,
        completion_tokens=174,
        seconds=0.21,
    )

    ranking: list[Ranked] = Field(description="Best first.")
    comparisons: int = Field(description="Pairs judged.")
    unparsable: int = Field(description="Comparisons without a readable verdict; they count not.")
    model: str = Field(description="Exact version that answered, name:number.")
    job: str | None = Field(description="The job that made this version.")
    template: str = Field(description="Name of the template that it was asked with.")
    template_sha256: str = Field(description="Of the template's content.")
    prompt_tokens: int = Field(description="Each prompt once.")
    completion_tokens: int = Field(description="Of all votes.")
    seconds: float = Field(description="From the call to its answer.")
