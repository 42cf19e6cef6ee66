"""Our trainer against TRL's SFTTrainer and DPOTrainer: same weights, data, steps and optimizer.

    python -m benchmarks.training [PAIRS [MODEL_FOLDER]]   5 pairs and the shipped seed by default

The rows are judgments of the small world, or pairs of a right and a wrong one. Both sides train on
the same steps (the same rows in each, one optimizer step for each), in float32, AdamW (betas 0.9
and 0.95, no weight decay), a constant rate, gradients clipped at norm 1; LoRA from the same first
adapter. DPO has the same beta and, as reference, the same seed, whose log-probabilities both sides
compute once before the first step (TRL: `precompute_ref_log_probs`). TRL gets its rows tokenised,
with loss on the judgment only, one padded batch for each step, no gradient checkpointing, its fused
head and its fused optimizer. We cut a step into micro-batches of rows of like length, as we do by
default.

Each run is a process of its own with the same threads. Tokens (prompts included, padding not) per
second run from the end of the warm-up steps to the end of the last one, without loading, references
and saving. Memory is the most that the process ever held, its libraries included. Losses that are
further apart than 1 % at any step are a failure, not a row.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.frame import PAIRS, ROOT, Row, in_turns, publish

SEED = ROOT / "seeds" / "smallworld"
TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
THEIRS = Path(__file__).parent / "peers" / "trl_training.py"
RUNS = [(kind, method) for kind in ("sft", "dpo") for method in ("full", "lora")]
PEERS = {"sft": "TRL's SFTTrainer", "dpo": "TRL's DPOTrainer"}
WARM_UP = 3
STEPS = 12
"""After those."""
STEPS_OF_LARGE = 4
TOKENS_PER_STEP = 4096
BETA = 0.1
APART = 0.01
"""Losses may differ by this share, at most."""
PACKAGES = ("torch", "transformers", "peft")
Found = dict[str, Any]


def main() -> None:
    """Run all four, and publish."""
    if sys.argv[1:2] == ["ours"]:
        return ours(Path(sys.argv[2]))
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    model = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else SEED
    rows: list[Row] = []
    notes = [f"Model: {model.name}, float32. Medians of {pairs} runs of each side."]
    if not TRL_PYTHON.exists():
        told = "no .venv-trl; `make check-trl` builds it"
        rows = [
            Row(f"{kind}, {method}", PEERS[kind], "tokens/s", [], [], at_least=1.0, missing=told)
            for kind, method in RUNS
        ]
        return publish("training", rows)
    for kind, method in RUNS:
        with tempfile.TemporaryDirectory() as name:
            prepare(Path(name), model, kind, method)
            found = compare(Path(name), pairs)
        what = f"{kind.upper()}, {'all weights' if method == 'full' else 'LoRA'}"
        rows += tell(what, PEERS[kind], found)
        notes.append(f"{what}: {losses(what, found)}{references(found)}.")
    versions = subprocess.run(
        [str(TRL_PYTHON), str(THEIRS), "versions"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    publish("training", rows, [*notes, f"TRL's side: {versions.strip()}."], PACKAGES)


def prepare(folder: Path, model: Path, kind: str, method: str) -> None:
    """Write what both sides train on: task.json, and the first adapter."""
    from selftaught.contracts import TrainSettings
    from selftaught.inference.local import load_model
    from services.trainer import data, loop

    large = (model / "model.safetensors").stat().st_size > 50e6
    settings = TrainSettings.model_validate(
        {
            "objective": "sft" if kind == "sft" else "sft_dpo",
            "beta": BETA,
            "nll_weight": 0.0,  # DPO alone, as TRL's default loss
            "method": method,
            "dtype": "fp32",
            "steps": WARM_UP + (STEPS_OF_LARGE if large else STEPS),
            "tokens_per_step": TOKENS_PER_STEP // 4 if large else TOKENS_PER_STEP,
            "warmup_steps": 0,
            "final_lr_share": 1.0,
            "learning_rate": 1e-5 if large else 1e-4,
            "weight_decay": 0.0,
            "checkpoints": 1,
        }
    )
    weights, tokenizer = load_model(model)
    items: list[data.Example] | list[data.Preference]
    if kind == "sft":
        items, _ = data.tokenise(judgments(600), tokenizer, 10**6)
    else:
        items, _ = data.tokenise_preferences(preferences(300), tokenizer, 10**6)
    numbered = {id(item): number for number, item in enumerate(items)}
    source: Iterator[list[Any]] = data.steps(items, settings.tokens_per_step, 0)
    taken = [next(source) for _ in range(settings.steps or 0)]
    if method == "lora":
        loop.prepare(weights, settings, 0).save_pretrained(folder / "adapter")
    task = {
        "kind": kind,
        "model": str(model),
        "settings": settings.model_dump(mode="json"),
        "items": [[{"ids": one.ids, "prompt": one.prompt} for one in i.sequences] for i in items],
        "steps": [[numbered[id(one)] for one in step] for step in taken],
        "warm_up": WARM_UP,
    }
    (folder / "task.json").write_text(json.dumps(task))


def judgments(count: int) -> list[dict[str, Any]]:
    """Judgments of the small world, as curation publishes them."""
    from seeds import judging, world

    rng = random.Random(0)
    found = []
    for _ in range(count):
        asked, judged = judging.example(rng, world.draw(rng, "pool"), 0.0)
        found.append({"prompt": said("user", asked), "completion": said("assistant", judged)})
    return found


def preferences(count: int) -> list[dict[str, Any]]:
    """A right judgment and one that takes the slip for the answer, likewise."""
    from seeds import judging, world

    rng = random.Random(0)
    found = []
    for _ in range(count):
        instruction = world.draw(rng, "pool")
        answer, wrong = instruction.answer, world.slip(rng, instruction.answer)
        a, b = rng.sample([answer, wrong], 2)
        asked = judging.ask(instruction.text, world.say(a), world.say(b))
        sides = {"chosen": answer, "rejected": wrong}
        judged = {
            name: said("assistant", judging.judgment(own, a, b)) for name, own in sides.items()
        }
        found.append({"prompt": said("user", asked), **judged})
    return found


def said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def compare(folder: Path, pairs: int) -> dict[str, list[Found]]:
    """What each run of each side found."""
    commands = {
        "ours": [sys.executable, "-m", "benchmarks.training", "ours"],
        "TRL": [str(TRL_PYTHON), str(THEIRS)],
    }
    found: dict[str, list[Found]] = {name: [] for name in commands}
    env = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": str(folder)}
    env |= {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error"}

    def run(side: str) -> float:
        done = subprocess.run(
            [*commands[side], str(folder / "task.json")],
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            check=True,
        )
        found[side].append(json.loads(done.stdout.splitlines()[-1]))
        return float(found[side][-1]["tokens_per_second"])

    in_turns({"ours": lambda: run("ours"), "TRL": lambda: run("TRL")}, pairs)
    return found


def tell(what: str, peer: str, found: dict[str, list[Found]]) -> list[Row]:
    """Speed and memory of one comparison."""

    def of(side: str, key: str) -> list[float]:
        return [one[key] for one in found[side]]

    speed, memory = "tokens_per_second", "peak_mib"
    mine, other = of("ours", speed), of("TRL", speed)
    held, theirs = of("ours", memory), of("TRL", memory)
    return [
        Row(f"{what}: speed", peer, "tokens/s", mine, other, at_least=1.0),
        Row(f"{what}: peak memory of the process", peer, "MiB", held, theirs, at_most=1.0),
    ]


def losses(what: str, found: dict[str, list[Found]]) -> str:
    """How far both sides' losses are apart. Raises SystemExit if that is too far."""
    pairs = [
        pair
        for mine, other in zip(found["ours"], found["TRL"], strict=True)
        for pair in zip(mine["losses"], other["losses"], strict=True)
    ]
    apart = max(abs(mine - other) / abs(other) for mine, other in pairs)
    if not apart <= APART:  # nor if it is no number
        raise SystemExit(f"{what}: losses differ by up to {100 * apart:.2f} %")
    first, last = found["ours"][0]["losses"], found["TRL"][0]["losses"]
    return (
        f"losses of any of {len(first)} steps at most {100 * apart:.4f} % apart, "
        f"of the last {first[-1]:.5f} and {last[-1]:.5f}"
    )


def references(found: dict[str, list[Found]]) -> str:
    """How long both sides took for DPO's references."""
    took = {side: [one["reference_seconds"] for one in runs] for side, runs in found.items()}
    if not any(took["ours"]):
        return ""
    mine, other = statistics.median(took["ours"]), statistics.median(took["TRL"])
    return (
        f"; the references of all pairs, before the first step, took {mine:.1f} and {other:.1f} s"
    )


def ours(task_file: Path) -> None:
    """Our side, in a process of its own: speed, losses and memory on standard output."""
    # Of the extra 'qlora', which PEFT loads if it is there; TRL's environment is without it.
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    from selftaught.contracts import TrainSettings
    from selftaught.inference.local import load_model
    from services.trainer import loop, objectives
    from services.trainer.data import Example, Preference, tokens

    task = json.loads(task_file.read_text())
    settings = TrainSettings.model_validate(task["settings"])
    read = [[Example(one["ids"], one["prompt"]) for one in item] for item in task["items"]]
    model, _ = load_model(Path(task["model"]))
    items: list[Any] = [item[0] for item in read]
    began = time.perf_counter()
    if task["kind"] == "dpo":
        pairs = [Preference(chosen, rejected) for chosen, rejected in read]
        items = objectives.with_references(model, pairs, settings)
    references = time.perf_counter() - began if task["kind"] == "dpo" else 0.0
    adapter = task_file.parent / "adapter"
    model = loop.prepare(model, settings, 0, adapter if adapter.exists() else None)
    ends: list[float] = []

    def on_step(step: int, loss: float, rate: float) -> None:
        ends.append(time.perf_counter())

    trained = loop.train(model, items, settings, 0, on_step)
    counts = [sum(tokens(items[index]) for index in step) for step in task["steps"]]
    assert trained.train_tokens == sum(counts)  # the steps that TRL has
    found = {
        "tokens_per_second": sum(counts[WARM_UP:]) / (ends[-1] - ends[WARM_UP - 1]),
        "losses": trained.losses,
        "reference_seconds": references,
        "peak_mib": peak_mib(),
    }
    print(json.dumps(found))


def peak_mib() -> float:
    """The most that this process ever held. Not ru_maxrss, which begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
