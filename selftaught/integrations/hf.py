"""Hugging Face `datasets`: what a job made, as a folder that `load_dataset` reads and a hub takes.

The way in needs no help: `client.datasets.upload(dataset, kind=...)` takes a `datasets.Dataset`, as
it takes any rows, and files that `to_json`, `to_csv` and `to_parquet` wrote.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from selftaught.client import Job
from selftaught.contracts import DataOut, ManifestOut

TRAINING = ("curate", "preferences")
"""What is trained on: examples (SFT), and preferences (DPO)."""


def export_dataset(
    job: Job, iteration: int, folder: str | Path, names: Sequence[str] = TRAINING
) -> Path:
    """Write data of a finished iteration to `folder`, which must not exist: a Parquet file for each
    of the `names` that has rows, and a dataset card (README.md) that says what they are.

    `datasets.load_dataset(folder, name)` reads them; `huggingface_hub.upload_folder` pushes them.
    Raises FileExistsError, ApiError, ValueError (nothing of these names is there).
    """
    folder = Path(folder)
    manifest = job.manifest(iteration)
    found = [one for one in manifest.data if one.name in names and one.rows]
    if not found:
        there = ", ".join(one.name for one in manifest.data if one.rows)
        raise ValueError(
            f"iteration {iteration} has none of {', '.join(names)}; there are: {there}"
        )
    folder.mkdir(parents=True)
    try:
        for one in found:
            path = folder / _file(one.name)
            path.parent.mkdir(parents=True)
            job.download(iteration, one.name, path, "parquet")
        (folder / "README.md").write_text(card(manifest, found))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def card(manifest: ManifestOut, data: Sequence[DataOut]) -> str:
    """A dataset card: which files there are, and where they came from."""
    configs = [
        {"config_name": one.name, "data_files": [{"split": "train", "path": _file(one.name)}]}
        for one in data
    ]
    header = yaml.safe_dump(
        {"configs": configs, "tags": ["selftaught", "llm-as-a-judge", "synthetic"]},
        sort_keys=False,
    )
    template = manifest.template["name"] if manifest.template else "none"
    rows = "\n".join(f"| `{one.name}` | {one.kind} | {one.rows} |" for one in data)
    dataset = manifest.dataset or {}
    return f"""---
{header}---

# Iteration {manifest.iteration} of {manifest.job}

Made by selftaught {manifest.code_version}, without labels that people gave: the judge
`{manifest.judge}` judged pairs of responses of which one is worse by construction. The version
`{manifest.version}` was trained on them.

| configuration | rows are | rows |
|---|---|---|
{rows}

- Instructions: dataset `{dataset.get("id")}`, sha256 `{dataset.get("sha256")}`.
- Judge template: `{template}`.
- Recipe: `{manifest.recipe.get("name")}`, base model `{manifest.recipe.get("base_model")}`, seed
  {manifest.recipe.get("seed")}.
- Judgments: {manifest.counts.get("judgments_sampled", 0)} sampled, \
{manifest.counts.get("judgments_kept", 0)} kept.
"""


def _file(name: str) -> str:
    return f"data/{name}/train-00000-of-00001.parquet"
