"""Do TRL's trainers take what curation publishes? Checked with the real files and the real TRL.

The shipped seed makes pairs and judgments, the product's own code curates them, and `datasets` and
TRL, in an environment of their own, load the files as they are, JSONL and Parquet, and train the
shipped seed on each for one step. TRL must also find the log-probabilities and the DPO loss that
the product's trainer finds.

    make check-trl                       builds .venv-trl first
    python scripts/check_trl.py FOLDER   with a job's downloads curate and preferences, each as
                                         .jsonl and .parquet
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEED = ROOT / "seeds" / "smallworld"
TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
COMPARED = 4  # preference pairs whose loss is compared
BETA = 0.1


def main() -> None:
    """Make the files, or take those that are named; then check them with TRL's Python."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) == 2:
            files = Path(sys.argv[1]).resolve()
        else:
            make_files(files := folder)
        expected = expect(files / "preferences.jsonl", folder / "reference")
        (folder / "expected.json").write_text(json.dumps(expected))
        offline = {"HF_HOME": name, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        arguments = ["--with-trl", name, str(files)]
        done = subprocess.run(
            [str(TRL_PYTHON), __file__, *arguments], env={**os.environ, **offline}, check=False
        )
    raise SystemExit(done.returncode)


# ---------------------------------------------------------------- the product's side


def make_files(folder: Path) -> None:
    """Examples and preferences as JSONL and Parquet: what one iteration of a job does up to its
    training, on a few instructions."""
    sys.path.insert(0, str(ROOT))
    from selftaught import jsonl, parquet
    from selftaught.artifacts import Writer, publish_rows, resolve
    from selftaught.inference.local import LocalEngine
    from selftaught.judging import load_judge_template, load_modify_template
    from selftaught.registry import resolve_recipe
    from selftaught.settings import get_settings
    from services.generator.curate import curate
    from services.generator.judge import judge_pairs
    from services.generator.pair import make_pairs

    os.environ["SELFTAUGHT_HOME"] = str(folder)
    get_settings.cache_clear()
    recipe = resolve_recipe("quickstart", {"curate": {"preferences": True}})
    template = load_judge_template(recipe.judge.template)
    rows = list(jsonl.read(SEED / "data" / "instructions.jsonl"))
    asked = [
        {"id": str(number), **row} for number, row in enumerate(random.Random(0).sample(rows, 48))
    ]
    engine = LocalEngine(SEED)
    modify = load_modify_template(recipe.pair.template)
    pairs = make_pairs(asked, engine, modify, recipe.pair, seed=0).rows
    judgments = judge_pairs(pairs, engine, template, recipe.judge, seed=0).rows
    sources = [
        publish_rows("judgments", "judgments.jsonl", judgments),
        publish_rows("pairs", "pairs.jsonl", pairs),
    ]
    read = [resolve(source.path) for source in sources]
    with (
        Writer("examples", "curate.jsonl") as examples,
        Writer("preferences", "preferences.jsonl") as preferences,
    ):
        curate(read[:1], read[1:], template, recipe.curate, 0, examples.write, preferences.write)
        published = [resolve(one.publish().path) for one in (examples, preferences)]
    for path in published:
        shutil.copy(path, folder)
        with (folder / f"{path.stem}.parquet").open("wb") as file:
            parquet.write(partial(jsonl.read, path), file)


def expect(preferences: Path, reference: Path) -> dict[str, float]:
    """What the product's trainer finds on the first pairs; the reference is the seed, bent a little
    so that it is not the model itself, and saved."""
    sys.path.insert(0, str(ROOT))
    import torch

    from selftaught import jsonl
    from selftaught.contracts import TrainSettings
    from selftaught.inference.local import load_model
    from services.trainer import data, objectives

    settings = TrainSettings(objective="sft_dpo", beta=BETA, nll_weight=0.0)
    model, tokenizer = load_model(SEED)
    rows = list(jsonl.read(preferences))[:COMPARED]
    pairs, _ = data.tokenise_preferences(rows, tokenizer, 1024)
    bent, _ = load_model(SEED)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in bent.parameters():
            weight += 0.02 * torch.randn_like(weight)
    bent.save_pretrained(reference)
    pairs = objectives.with_references(bent, pairs, settings)
    with torch.inference_mode():
        chosen = objectives.log_probs(model, [pair.chosen for pair in pairs], settings)
        rejected = objectives.log_probs(model, [pair.rejected for pair in pairs], settings)
        loss = objectives.dpo(model, pairs, settings).mean()
    return {
        "loss": float(loss),
        "logps/chosen": float(chosen.mean()),
        "logps/rejected": float(rejected.mean()),
    }


# ---------------------------------------------------------------- TRL's side


def with_trl(folder: Path, files: Path) -> None:
    """In .venv-trl: load both files in both formats and train a step on each."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    def load(name: str) -> Any:
        """The rows, which are the same in both files."""
        path = files / f"{name}.jsonl"
        plain = load_dataset("json", data_files=str(path), split="train")
        parquet = str(path.with_suffix(".parquet"))
        again = load_dataset("parquet", data_files=parquet, split="train")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if not plain.to_list() == again.to_list() == lines:
            raise SystemExit(f"{name}: the loaded rows are not the written ones")
        print(f"{name}: {len(lines)} rows, {plain.column_names}")
        return again

    def step(trainer: Any) -> dict[str, float]:
        trainer.train()
        found: dict[str, float] = next(
            entry for entry in trainer.state.log_history if "loss" in entry
        )
        print(f"   {type(trainer).__name__}: {found}")
        return found

    common: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "per_device_train_batch_size": COMPARED,
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    seed, tokenizer = str(SEED), AutoTokenizer.from_pretrained(SEED)
    step(
        SFTTrainer(
            seed, SFTConfig(**common), train_dataset=load("curate"), processing_class=tokenizer
        )
    )
    pairs = load("preferences")
    weighed = DPOConfig(**common, loss_type=["sigmoid", "sft"])
    step(DPOTrainer(seed, args=weighed, train_dataset=pairs, processing_class=tokenizer))
    found = step(
        DPOTrainer(
            seed,
            AutoModelForCausalLM.from_pretrained(folder / "reference"),
            DPOConfig(**common, beta=BETA),
            train_dataset=pairs.select(range(COMPARED)),
            processing_class=tokenizer,
        )
    )
    expected = json.loads((folder / "expected.json").read_text())
    for name, value in expected.items():
        if abs(found[name] - value) > 1e-3 * max(1.0, abs(value)):
            raise SystemExit(f"{name}: TRL has {found[name]}, the product's trainer {value}")
    print(f"   the product's trainer: {expected}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--with-trl"]:
        with_trl(*map(Path, sys.argv[2:]))
    else:
        main()
