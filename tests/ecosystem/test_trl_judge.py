"""The judge and the reward function, and TRL's online DPO with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from selftaught import ApiError, Client
from selftaught.integrations.trl import PairwiseJudge, WinRate

ASK = "Swap the first and the last letter: "
PROMPTS = [ASK + "m f q", ASK + "a b", ASK + "a b c"]
PAIRS = [["q f m", "q m"], ["b", "b a"], ["c b a", "c b a"]]


def as_messages(text: str, role: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def test_a_judge_in_trls_shape(client: Client) -> None:
    judge = PairwiseJudge(client, model="tour:0")
    found = judge.judge(PROMPTS, PAIRS, shuffle_order=True)
    assert found == [0, 1, -1]
    scores = judge.judge(PROMPTS, PAIRS, return_scores=True)
    assert scores[0] > 0.5 > scores[1] and scores[2] == pytest.approx(0.5)
    conversations = [as_messages(one, "user") for one in PROMPTS]
    answers = [[as_messages(one, "assistant") for one in pair] for pair in PAIRS]
    assert judge.judge(conversations, answers) == found
    with pytest.raises(ApiError, match="unknown_model"):
        PairwiseJudge(client, model="none").judge(PROMPTS, PAIRS)


def test_rewards_are_win_rates(client: Client) -> None:
    reward = WinRate(client, model="tour:0")
    rewards = reward([*PROMPTS, PROMPTS[0], "alone"], ["q f m", "b a", "c b a", "q m", "x"])
    assert rewards[0] + rewards[3] == pytest.approx(1) and rewards[0] > rewards[3]
    assert rewards[1] is rewards[2] is rewards[4] is None
    many = reward([PROMPTS[0]] * 3, ["q m", "q f m", "m"])
    assert many[1] == max(many) and many[1] > 0.5


def test_online_dpo_trains_with_it(client: Client, seed: str, tmp_path: Path) -> None:
    seen: list[float] = []

    class Noted(WinRate):
        def __call__(self, *arguments: Any, **fields: Any) -> list[float | None]:
            found = super().__call__(*arguments, **fields)
            seen.extend(one for one in found if one is not None)
            return found

    settings = OnlineDPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, use_cpu=True,
        bf16=False, max_new_tokens=8, report_to=[], save_strategy="no", disable_tqdm=True,
        max_length=128,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": as_messages(one, "user")} for one in PROMPTS[:2]])
    trainer = OnlineDPOTrainer(
        model=seed,
        reward_funcs=Noted(client, model="tour:0"),
        args=settings,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(seed),
    )
    trainer.train()
    assert len(seen) == 4 and all(0 <= one <= 1 for one in seen)
