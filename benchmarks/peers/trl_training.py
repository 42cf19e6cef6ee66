"""TRL's side of benchmarks/training.py; runs in .venv-trl, which has nothing of this project.

python trl_training.py TASK_FILE | versions
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-not-found]
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # type: ignore[import-not-found]


class Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


class Told:
    """A trainer that takes the batches that it is told to."""

    batches: list[list[int]]
    reference_seconds = 0.0

    def get_train_dataloader(self: Any) -> Any:
        loader = DataLoader(
            self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)


class Sft(Told, SFTTrainer):  # type: ignore[misc]
    pass


class Dpo(Told, DPOTrainer):  # type: ignore[misc]
    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # tokenised already; SFTTrainer has an option for this

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds = time.perf_counter() - began
        return found


def main() -> None:
    """Speed, losses and memory on standard output, last."""
    if sys.argv[1] == "versions":
        names = ("trl", "torch", "transformers", "peft", "accelerate", "datasets")
        print(", ".join(f"{name} {version(name)}" for name in names))
        return
    task_file = Path(sys.argv[1])
    task = json.loads(task_file.read_text())
    steps, warm_up = task["steps"], task["warm_up"]
    with tempfile.TemporaryDirectory() as name:
        trainer = trainer_of(task, task_file.parent / "adapter", name)
        trainer.batches = steps
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    tokens = [sum(len(one["ids"]) for one in item) for item in task["items"]]
    done = sum(tokens[index] for step in steps[warm_up:] for index in step)
    found = {
        "tokens_per_second": done / (clock.ends[-1] - clock.ends[warm_up - 1]),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "reference_seconds": trainer.reference_seconds,
        "peak_mib": peak_mib(),
    }
    print(json.dumps(found))


def trainer_of(task: dict[str, Any], adapter: Path, folder: str) -> Any:
    """The trainer, with everything that the task says."""
    torch.manual_seed(0)
    settings, largest = task["settings"], max(map(len, task["steps"]))
    model: Any = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    if adapter.exists():
        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    common = {
        "output_dir": folder,
        "max_steps": len(task["steps"]),
        "per_device_train_batch_size": largest,
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": settings["max_grad_norm"],
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "max_length": None,
        "remove_unused_columns": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_pin_memory": False,
    }
    if task["kind"] == "sft":
        config = SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True})
        kind, rows = Sft, [labelled(one) for (one,) in task["items"]]
    else:
        config = DPOConfig(**common, beta=settings["beta"], precompute_ref_log_probs=True)
        kind, rows = Dpo, [preferred(*item) for item in task["items"]]
    dataset = Dataset.from_list(rows)
    return kind(model, args=config, train_dataset=dataset, processing_class=tokenizer)


def labelled(one: dict[str, Any]) -> dict[str, list[int]]:
    ids, prompt = one["ids"], one["prompt"]
    return {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}


def preferred(chosen: dict[str, Any], rejected: dict[str, Any]) -> dict[str, list[int]]:
    prompt = chosen["prompt"]
    return {
        "prompt_ids": chosen["ids"][:prompt],
        "chosen_ids": chosen["ids"][prompt:],
        "rejected_ids": rejected["ids"][prompt:],
    }


def peak_mib() -> float:
    """The most that this process ever held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
