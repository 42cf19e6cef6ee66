"""TRL's side of benchmarks/trainer.py; runs in .venv-trl, which has nothing of this project."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-not-found]
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]


class Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


class Steps(SFTTrainer):  # type: ignore[misc]
    """Takes the batches that it is told to."""

    batches: list[list[int]]

    def get_train_dataloader(self) -> Any:
        loader = DataLoader(
            self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)


def main() -> None:
    """{tokens_per_second, losses} on standard output, last."""
    task_file = Path(sys.argv[1])
    task = json.loads(task_file.read_text())
    settings, steps, warm_up = task["settings"], task["steps"], task["warm_up"]
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    adapter = task_file.parent / "adapter"
    if adapter.exists():
        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    rows = [
        {
            "input_ids": one["ids"],
            "labels": [-100] * one["prompt"] + one["ids"][one["prompt"] :],
        }
        for one in task["items"]
    ]
    with tempfile.TemporaryDirectory() as name:
        config = SFTConfig(
            output_dir=name,
            max_steps=len(steps),
            per_device_train_batch_size=max(map(len, steps)),
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=settings["max_grad_norm"],
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            logging_steps=1,
            disable_tqdm=True,
            save_strategy="no",
            report_to="none",
            dataloader_pin_memory=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(task["model"])
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        trainer = Steps(
            model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        trainer.batches = steps
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    done = sum(len(rows[index]["input_ids"]) for step in steps[warm_up:] for index in step)
    speed = done / (clock.ends[-1] - clock.ends[warm_up - 1])
    print(json.dumps({"tokens_per_second": speed, "losses": losses}))


if __name__ == "__main__":
    main()
