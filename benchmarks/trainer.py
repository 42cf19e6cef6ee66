"""Our trainer against TRL's SFTTrainer: same weights, data, batches, dtype and optimizer.

    make check-trl                                       builds .venv-trl (once)
    python -m benchmarks.trainer [PAIRS] [MODEL_FOLDER]  5 pairs and the shipped seed by default

The rows are judgments of the small world. Both sides train on the same steps (the same rows in
each, one optimizer step for each), in float32, AdamW (betas 0.9 and 0.95, no weight decay), a
constant rate, gradients clipped at norm 1, LoRA from the same first adapter. TRL gets its rows
tokenised, with labels for the judgment only, one padded batch for each step, no gradient
checkpointing, its fused head and its fused optimizer. We cut a step into micro-batches of rows of
like length, as we do by default; `whole` is the same with one micro-batch a step, as TRL does it.

The sides take turns, each in a process of its own with the same threads. Tokens (prompts included,
padding not) per second run from the end of the warm-up steps to the end of the last one, without
loading or saving.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine

ROOT = Path(__file__).resolve().parent.parent
SEED = ROOT / "seeds" / "smallworld"
TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
SIDES = ("ours", "whole", "trl")
WARM_UP = 3
Found = dict[str, Any]


def main() -> None:
    """Print a line for each run, then ratios and how far the losses are apart."""
    if len(sys.argv) > 2 and sys.argv[1] in SIDES:
        return run(Path(sys.argv[2]), whole=sys.argv[1] == "whole")
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    model = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else SEED
    print(f"{model.name}; {machine.name('torch', 'transformers', 'peft')}")
    for method in ("full", "lora"):
        with tempfile.TemporaryDirectory() as name:
            prepare(Path(name), model, method)
            found = [turn(Path(name), number) for number in range(pairs)]
        report(method, found)


def prepare(folder: Path, model: Path, method: str) -> None:
    """Write what both sides train on: task.json, and the first adapter."""
    from selftaught.contracts import TrainSettings
    from selftaught.inference.local import load_model
    from services.trainer import data, loop

    large = (model / "model.safetensors").stat().st_size > 50e6
    settings = TrainSettings.model_validate(
        {
            "method": method,
            "dtype": "fp32",
            "steps": WARM_UP + (5 if large else 60),
            "tokens_per_step": 1024 if large else 4096,
            "warmup_steps": 0,
            "final_lr_share": 1.0,
            "learning_rate": 1e-5 if large else 1e-4,
            "weight_decay": 0.0,
            "checkpoints": 1,
        }
    )
    weights, tokenizer = load_model(model)
    items, _ = data.tokenise(rows(600), tokenizer, 10**6)
    source = data.steps(items, settings.tokens_per_step, 0)
    taken = [next(source) for _ in range(settings.steps or 0)]
    if method == "lora":
        loop.prepare(weights, settings, 0).save_pretrained(folder / "adapter")
    task = {
        "model": str(model),
        "settings": settings.model_dump(mode="json"),
        "items": [{"ids": one.ids, "prompt": one.prompt} for one in items],
        "steps": [[items.index(one) for one in step] for step in taken],
        "warm_up": WARM_UP,
    }
    (folder / "task.json").write_text(json.dumps(task))


def rows(count: int) -> list[dict[str, Any]]:
    """Judgments of the small world, as curation publishes them."""
    from seeds import judging, world

    rng = random.Random(0)
    found = []
    for _ in range(count):
        asked, judged = judging.example(rng, world.draw(rng, "pool"), 0.0)
        prompt = [{"role": "user", "content": asked}]
        found.append({"prompt": prompt, "completion": [{"role": "assistant", "content": judged}]})
    return found


def turn(folder: Path, number: int) -> dict[str, Found]:
    """One run of each side, in an order that changes."""
    found = {}
    for side in (*SIDES[number % 3 :], *SIDES[: number % 3]):
        ours = [sys.executable, "-m", "benchmarks.trainer", side]
        theirs = [str(TRL_PYTHON), str(ROOT / "benchmarks" / "trainer_trl.py")]
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": str(folder)}
        done = subprocess.run(
            [*(theirs if side == "trl" else ours), str(folder / "task.json")],
            env={**os.environ, **offline},
            stdout=subprocess.PIPE,
            check=True,
        )
        found[side] = json.loads(done.stdout.splitlines()[-1])
    told = ", ".join(
        f"{side} {one['tokens_per_second']:.0f}" for side, one in sorted(found.items())
    )
    print(f"run {number + 1}, tokens/s: {told}", flush=True)
    return found


def run(task_file: Path, whole: bool) -> None:
    """Our side, in a process of its own: {tokens_per_second, losses} on standard output."""
    import time

    from selftaught.contracts import TrainSettings
    from selftaught.inference.local import load_model
    from services.trainer import loop
    from services.trainer.data import Example

    task = json.loads(task_file.read_text())
    settings = TrainSettings.model_validate(task["settings"])
    if whole:
        settings = settings.model_copy(update={"micro_batch_tokens": 10**9})
    items = [Example(one["ids"], one["prompt"]) for one in task["items"]]
    adapter = task_file.parent / "adapter"
    model, _ = load_model(Path(task["model"]))
    model = loop.prepare(model, settings, 0, adapter if adapter.exists() else None)
    ends: list[float] = []
    trained = loop.train(
        model,
        items,
        settings,
        0,
        lambda step, loss, rate: ends.append(time.perf_counter()),
    )
    counts = [sum(len(items[index].ids) for index in step) for step in task["steps"]]
    assert trained.train_tokens == sum(counts)  # the steps that TRL has
    speed = sum(counts[WARM_UP:]) / (ends[-1] - ends[WARM_UP - 1])
    print(json.dumps({"tokens_per_second": speed, "losses": trained.losses}))


def report(method: str, found: list[dict[str, Found]]) -> None:
    """Median ratios with their spread, and the losses side by side."""
    for side in ("ours", "whole"):
        ratios = [one[side]["tokens_per_second"] / one["trl"]["tokens_per_second"] for one in found]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        losses = list(zip(found[0][side]["losses"], found[0]["trl"]["losses"], strict=True))
        apart = max(abs(mine - theirs) / theirs for mine, theirs in losses)
        print(
            f"{method}, {side} / TRL: {statistics.median(ratios):.2f} ({spread}); loss of the last "
            f"of {len(losses)} steps {losses[-1][0]:.5f} and {losses[-1][1]:.5f}, "
            f"of any step at most {100 * apart:.3f} % apart"
        )


if __name__ == "__main__":
    main()
