"""Hugging Face `datasets`, in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from selftaught import Client
from selftaught.client import Job
from selftaught.integrations.hf import export_dataset

U = {"role": "user", "content": "Swap the first and the last letter: m f q"}
CHAT = {"messages": [U, {"role": "assistant", "content": "q f m"}], "source": None, "n": 1}
PREFERENCE = {
    "prompt": [U],
    "chosen": [{"role": "assistant", "content": "q f m"}],
    "rejected": [{"role": "assistant", "content": "q m"}],
    "score": 0.5,
}
ROWS: list[tuple[Any, dict[str, Any]]] = [
    ("instructions", {"instruction": U["content"], "note": "größer \u2028"}),
    ("instructions", {"prompt": U["content"], "tags": ["a", "b"], "about": {"n": 1}}),
    ("instructions", CHAT),
    ("instructions", {"prompt": [U]}),
    ("labelled", {"prompt": U["content"], "chosen": "q f m", "rejected": "q m"}),
    ("labelled", PREFERENCE),
    ("labelled", {"chosen": [U, *PREFERENCE["chosen"]], "rejected": [U, *PREFERENCE["rejected"]]}),
]


@pytest.mark.parametrize(("kind", "row"), ROWS)
def test_what_datasets_writes_is_taken(
    client: Client, kind: Any, row: dict[str, Any], tmp_path: Path
) -> None:
    rows = Dataset.from_list([row, row])
    rows.to_json(tmp_path / "rows.jsonl")
    rows.to_parquet(tmp_path / "rows.parquet")
    found = [client.datasets.upload(rows, kind)]
    found += [
        client.datasets.upload(tmp_path / f"rows.{ext}", kind) for ext in ("jsonl", "parquet")
    ]
    if all(isinstance(value, str) for value in row.values()):
        rows.to_csv(tmp_path / "rows.csv")
        assert client.datasets.upload(tmp_path / "rows.csv", kind).rows == 2
    assert {one.rows for one in found} == {2}
    assert len({one.sha256 for one in found}) == 1


def test_downloads_are_loaded_by_their_address(client: Client, job: Job) -> None:
    key = client.keys.create("hf", ["read"]).secret
    options = {"client_kwargs": {"headers": {"Authorization": f"Bearer {key}"}}}
    for data in job.data():
        if not data.rows:
            continue
        url = f"{client.base_url}{data.url}"
        plain = load_dataset("json", data_files=url, split="train", storage_options=options)
        packed = f"{url}?format=parquet"
        again = load_dataset("parquet", data_files=packed, split="train", storage_options=options)
        assert len(plain) == len(again) == data.rows and set(plain.features) == set(again.features)
        assert plain.to_list() == again.to_list(), data.name


def test_an_export_is_a_dataset(client: Client, job: Job, tmp_path: Path) -> None:
    folder = export_dataset(job, 1, tmp_path / "out", ["curate", "preferences", "pair"])
    card = (folder / "README.md").read_text()
    assert job.id in card and "tour:0" in card
    examples = load_dataset(str(folder), "curate", split="train")
    assert {"prompt", "completion"} <= set(examples.column_names)
    assert examples[0]["prompt"][0].keys() >= {"role", "content"}
    preferences = load_dataset(str(folder), "preferences", split="train")
    assert preferences[0]["chosen"] != preferences[0]["rejected"]
    path = job.download(1, "preferences", tmp_path / "preferences.jsonl")
    assert preferences.to_list() == [json.loads(line) for line in path.read_text().splitlines()]
    back = client.datasets.upload(preferences, "labelled")
    assert back.rows == len(preferences)
    with pytest.raises(FileExistsError):
        export_dataset(job, 1, folder)
    with pytest.raises(ValueError, match="pair"):
        export_dataset(job, 1, tmp_path / "none", ["poems"])
