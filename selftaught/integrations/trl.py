"""TRL: a judge in the shape of its pairwise judges, and a reward function for its online trainers.

TRL had `BasePairwiseJudge` up to 1.0 (in `trl.experimental.judges`, before that in
`trl.trainer.judges`), and newer ones take reward functions instead; this module needs no TRL at
all, but becomes a subclass of that class where there is one.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from selftaught import Client
from selftaught.contracts import JudgeOut

Text = str | Sequence[Mapping[str, Any]]
"""A text, or a conversation, as TRL has both."""
MOST = 64
"""Completions of one prompt that can be ranked together."""
Given = TypeVar("Given")
Found = TypeVar("Found")


def _base() -> type:
    for module in ("trl.experimental.judges", "trl.trainer.judges"):
        try:
            return importlib.import_module(module).BasePairwiseJudge  # type: ignore[no-any-return]
        except ImportError:  # another TRL, or none
            continue
    return object


class PairwiseJudge(_base()):  # type: ignore[misc]
    """`judge(prompts, completions)` by the gateway's judge: for WinRateCallback and the like.

    `model`: name, name:alias or name:number; default: the only model's `latest`. `workers`: pairs
    asked at once. `options`: more of `Client.judge`, such as `rubric` or `votes`.
    """

    def __init__(
        self,
        client: Client | None = None,
        model: str | None = None,
        workers: int = 8,
        **options: Any,
    ) -> None:
        self._client = client or Client()
        self._options = {"model": model, **options}
        self._workers = workers

    def judge(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Sequence[Text]],
        shuffle_order: bool = True,
        return_scores: bool = False,
    ) -> list[int] | list[float]:
        """The place (0 or 1) of each pair's better completion; -1: a tie, or no readable verdict.

        With `return_scores` the probability that the first is better; a tie counts half, and no
        readable verdict is 0.5. `shuffle_order` has no effect: every pair is judged in both orders.
        Raises ApiError.
        """

        def ask(pair: tuple[Text, Sequence[Text]]) -> JudgeOut:
            prompt, (first, second) = pair
            return _judge(self._client, prompt, first, second, self._options)

        verdicts = _at_once(ask, list(zip(prompts, completions, strict=True)), self._workers)
        if return_scores:
            found = [first_wins(one) for one in verdicts]
            return [0.5 if one is None else one for one in found]
        return [{"A": 0, "B": 1}.get(one.verdict, -1) for one in verdicts]


class WinRate:
    """A reward function: how often a completion is better than the others of its prompt, 0 to 1.

    For trainers that draw several completions of a prompt: OnlineDPOTrainer (two), GRPOTrainer. Two
    are judged as a pair; more of them, up to 64, are ranked. None (which TRL leaves out) without
    another completion, or a readable verdict. Arguments as of :class:`PairwiseJudge`; `options`
    must be such that `Client.rank` takes them, too, where there are more than two.
    """

    def __init__(
        self,
        client: Client | None = None,
        model: str | None = None,
        workers: int = 8,
        **options: Any,
    ) -> None:
        self.__name__ = "win_rate"  # under which TRL logs it
        self._client = client or Client()
        self._options = {"model": model, **options}
        self._workers = workers

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Text], **_: Any
    ) -> list[float | None]:
        """A reward for each completion; raises ApiError."""
        groups: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            groups.setdefault(json.dumps(prompt, sort_keys=True), []).append(place)

        def ask(places: list[int]) -> list[float | None]:
            return self._rates(prompts[places[0]], [completions[place] for place in places])

        rewards: list[float | None] = [None] * len(prompts)
        for places, found in zip(
            groups.values(), _at_once(ask, list(groups.values()), self._workers), strict=True
        ):
            for place, reward in zip(places, found, strict=True):
                rewards[place] = reward
        return rewards

    def _rates(self, prompt: Text, completions: Sequence[Text]) -> list[float | None]:
        """The rewards of one prompt's completions."""
        if len(completions) < 2:
            return [None] * len(completions)
        if len(completions) == 2:
            one, other = completions
            first = first_wins(_judge(self._client, prompt, one, other, self._options))
            return [first, None if first is None else 1 - first]
        if len(completions) > MOST:
            raise ValueError(f"{len(completions)} completions of one prompt; at most {MOST}")
        responses = [_text(one) for one in completions]
        ranking = self._client.rank(_asked(prompt), responses, **self._options)
        rates: list[float | None] = [None] * len(completions)
        for found in ranking.ranking:
            if judged := found.wins + found.losses + found.ties:
                rates[found.response] = (found.wins + found.ties / 2) / judged
        return rates


def first_wins(verdict: JudgeOut) -> float | None:
    """The probability that A is better, a tie counting half; None without a readable verdict.

    By the verdict alone (1, 0 or 0.5) where the engine tells no probabilities.
    """
    if verdict.verdict == "unparsable":
        return None
    if verdict.probability is not None:
        return verdict.probability.a + verdict.probability.tie / 2
    return {"A": 1.0, "B": 0.0}.get(verdict.verdict, 0.5)


def _judge(
    client: Client, prompt: Text, first: Text, second: Text, options: Mapping[str, Any]
) -> JudgeOut:
    return client.judge(_asked(prompt), _text(first), _text(second), **options)


def _asked(prompt: Text) -> Any:
    """What the client takes for an instruction: a text, or messages with nothing but role and
    content."""
    if isinstance(prompt, str):
        return prompt
    return [{"role": one["role"], "content": one["content"]} for one in prompt]


def _text(completion: Text) -> str:
    """A completion's text; of a conversation what its last message says."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _at_once(ask: Callable[[Given], Found], items: Iterable[Given], workers: int) -> list[Found]:
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(ask, items))
