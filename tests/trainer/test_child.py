"""The training process: its output folder is whole or absent, its failures have names."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from selftaught import tenancy
from selftaught.database import transaction
from selftaught.database.tables import Project, StoredTemplate
from selftaught.inference import Request, Sampling
from selftaught.inference.local import LocalEngine
from selftaught.judging import load_judge_template
from services.trainer import checkpoints
from services.trainer.checkpoints import Checkpoint
from services.trainer.child import report
from tests.conftest import Servers
from tests.trainer.conftest import lesson, preferences, write

ROOT = Path(__file__).parents[2]
SETTINGS = {"learning_rate": 8e-3, "warmup_steps": 2, "steps": 24, "tokens_per_step": 900}


def spec(tmp_path: Path, base: Path, **changes: Any) -> dict[str, Any]:
    rows, pairs = lesson(12)
    return {
        "base_model": str(base),
        "examples_paths": [str(write(tmp_path / "sft.jsonl", rows))],
        "choose_on_paths": [
            str(write(tmp_path / "h0.jsonl", pairs[:5])),
            str(write(tmp_path / "h1.jsonl", pairs[5:])),
        ],
        "template": "smallworld",
        "project": None,
        "output_dir": str(tmp_path / "made" / "model"),
        "work_dir": str(tmp_path / "made" / "run"),
        "settings": {**SETTINGS, "checkpoints": 3},
        "max_tokens": 8,
        "seed": 1,
        **changes,
    }


def start(tmp_path: Path, given: dict[str, Any], **env: str) -> subprocess.Popen[str]:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(given))
    return subprocess.Popen(
        [sys.executable, "-m", "services.trainer.child", str(file)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


Events = list[dict[str, Any]]
Run = Callable[[dict[str, Any]], tuple[int, Events]]


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a spec in this process: (exit status, events)."""

    def here(given: dict[str, Any]) -> tuple[int, Events]:
        file = tmp_path / "spec.json"
        file.write_text(json.dumps(given))
        capfdbinary.readouterr()
        status = report(file)
        return status, [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

    return here


def leftovers(tmp_path: Path) -> list[str]:
    folder = tmp_path / "made"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_run_publishes_its_best_checkpoint(tmp_path: Path, base: Path) -> None:
    child = start(tmp_path, spec(tmp_path, base))
    assert child.stdout is not None
    events = [json.loads(line) for line in child.stdout]
    assert child.wait() == 0
    kinds = [event["type"] for event in events]
    assert kinds == ["step"] * 24 + ["checkpoint"] * 3 + ["done"]
    result = events[-1]["result"]
    assert [c["step"] for c in result["checkpoints"]] == [8, 16, 24]
    assert result["chosen_on_pairs"] == 6  # every second one; the gate has the others
    best = max(result["checkpoints"], key=lambda c: (c["strict_accuracy"], c["mean_accuracy"]))
    assert result["checkpoint"]["strict_accuracy"] == best["strict_accuracy"]
    assert result["steps"] == len(result["losses"]) == 24
    assert result["final_loss"] == result["losses"][-1] < result["losses"][0]
    assert leftovers(tmp_path) == ["model"]
    made = tmp_path / "made" / "model"
    AutoModelForCausalLM.from_pretrained(made)  # a plain transformers folder
    rows, _ = lesson(1)
    [[answer]] = LocalEngine(made).generate(
        [Request(rows[0]["prompt"], 0)], Sampling(temperature=0, max_tokens=8)
    )
    assert answer.text.startswith("[[")
    assert answer.finished


def test_an_adapter_folder_loads_on_its_base(tmp_path: Path, base: Path, run: Run) -> None:
    settings = {**SETTINGS, "method": "lora", "steps": 4, "learning_rate": 5e-2}
    code, events = run(spec(tmp_path, base, settings=settings))
    assert (code, events[-1]["type"]) == (0, "done")
    made = tmp_path / "made" / "model"
    assert (made / "adapter_model.safetensors").exists()
    assert not (made / "model.safetensors").exists()
    modules = json.loads((made / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules), "or the same adapter has another hash in every process"
    ask = [Request([{"role": "user", "content": "hello"}], 0)]
    greedy = Sampling(temperature=0, max_tokens=20)
    assert LocalEngine(made).generate(ask, greedy) != LocalEngine(base).generate(ask, greedy)


def test_the_same_spec_gives_the_same_model(tmp_path: Path, base: Path, run: Run) -> None:
    files = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        assert run(spec(folder, base, settings={**SETTINGS, "steps": 3}))[0] == 0
        files.append((folder / "made/model/model.safetensors").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"base_model": "/nowhere"}, "model_load_failed"),
        ({"examples_paths": ["empty.jsonl"]}, "bad_data"),
        ({"examples_paths": ["broken.jsonl"]}, "bad_data"),
        ({"choose_on_paths": ["empty.jsonl"]}, "bad_data"),
        ({"settings": {**SETTINGS, "learning_rate": 1e30, "warmup_steps": 0}}, "nan_loss"),
        ({"settings": {"stepz": 3}}, "bad_spec"),
    ],
)
def test_failures_have_codes_and_leave_nothing(
    tmp_path: Path, base: Path, run: Run, changes: dict[str, Any], code: str
) -> None:
    write(tmp_path / "empty.jsonl", [])
    (tmp_path / "broken.jsonl").write_text('{"prompt": []}\n')
    for key in ("examples_paths", "choose_on_paths"):
        if key in changes:
            changes = {**changes, key: [str(tmp_path / name) for name in changes[key]]}
    status, events = run(spec(tmp_path, base, **changes))
    assert status == 1
    assert events[-1]["type"] == "error"
    assert events[-1]["code"] == code
    assert events[-1]["message"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("how", ["terminate", "parent gone"])
def test_it_can_be_stopped_and_publishes_nothing(tmp_path: Path, base: Path, how: str) -> None:
    child = start(tmp_path, spec(tmp_path, base, settings={**SETTINGS, "steps": 100_000}))
    assert child.stdout is not None
    assert child.stdin is not None
    assert json.loads(child.stdout.readline())["type"] == "step"
    if how == "terminate":
        child.send_signal(signal.SIGTERM)
    else:
        child.stdin.close()
    assert child.wait(timeout=120) == 128 + signal.SIGTERM
    assert leftovers(tmp_path) == ["run"]  # for the next attempt to go on with


def test_it_stops_when_a_parent_that_spoke_falls_silent(tmp_path: Path, base: Path) -> None:
    """A worker that is frozen has lost its lease, and the next one wants the device."""
    long = {**SETTINGS, "steps": 100_000}
    child = start(tmp_path, spec(tmp_path, base, settings=long), SELFTAUGHT_LEASE_SECONDS="0.5")
    assert child.stdout is not None and child.stdin is not None
    assert json.loads(child.stdout.readline())["type"] == "step"
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.wait(timeout=120) == 128 + signal.SIGTERM
    assert leftovers(tmp_path) == ["run"]


LONG = {**SETTINGS, "steps": 60, "save_every": 20}
LORA_DPO = {"objective": "sft_dpo", "method": "lora", "lora": {"dropout": 0.1}}


@pytest.mark.parametrize("given", [{}, LORA_DPO], ids=["sft full", "sft_dpo lora"])
def test_a_run_killed_in_the_middle_ends_as_if_nothing_had_been(
    tmp_path: Path, base: Path, given: dict[str, Any]
) -> None:
    """kill -9 of the real process; the same weights, to the bit, the same losses and scores."""

    def specify(name: str) -> dict[str, Any]:
        folder = tmp_path / name
        folder.mkdir()
        made = spec(folder, base, settings={**LONG, **given, "checkpoints": 3})
        rows = preferences(12) if "objective" in given else lesson(12)[0]
        # One place for both runs: the rows' path is part of what makes them the same run.
        return {**made, "examples_paths": [str(write(tmp_path / "rows.jsonl", rows))]}

    def follow(folder: Path, given: dict[str, Any]) -> Events:
        with start(folder, given) as child:
            assert child.stdout is not None
            return [json.loads(line) for line in child.stdout]

    whole = specify("whole")
    undisturbed = follow(tmp_path / "whole", whole)[-1]["result"]

    broken = specify("broken")
    with start(tmp_path / "broken", broken) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line)["step"] == 27:
                break
        child.kill()
        assert child.wait() == -signal.SIGKILL
    work = Path(broken["work_dir"])
    assert leftovers(tmp_path / "broken") == ["run"]
    (work / "state.tmp").write_bytes(b"half a state")
    (work / ".40").mkdir(exist_ok=True)  # half a checkpoint

    events = follow(tmp_path / "broken", broken)
    assert events[0]["type"] == "resumed"
    assert events[0]["step"] >= 20
    assert events[-1]["type"] == "done", events[-1]
    result = events[-1]["result"]
    assert result["resumed_from"] == events[0]["step"]
    assert {**result, "resumed_from": 0} == undisturbed
    assert leftovers(tmp_path / "broken") == ["model"]
    weights = "adapter_model.safetensors" if "method" in given else "model.safetensors"
    one, other = (tmp_path / name / "made" / "model" / weights for name in ("whole", "broken"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("what", ["another run's state", "a checkpoint is missing"])
def test_a_state_that_cannot_be_gone_on_from_is_not(
    tmp_path: Path, base: Path, run: Run, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    given = spec(tmp_path, base, settings={**SETTINGS, "steps": 6, "save_every": 3})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            run(given)
    assert (tmp_path / "made" / "run" / "state.pt").exists()
    if what == "a checkpoint is missing":
        shutil.rmtree(tmp_path / "made" / "run" / "3")
    else:
        given["seed"] = 2
    status, events = run(given)
    assert (status, events[0]["type"], events[0]["step"]) == (0, "step", 1)
    assert events[-1]["result"]["resumed_from"] == 0


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_can_go_on_from_the_version_before(
    tmp_path: Path, base: Path, run: Run, method: str
) -> None:
    """It starts at that version's loss, not at the seed's; an adapter stays one on the seed."""
    settings = {**SETTINGS, "method": method, "warmup_steps": 0, "tokens_per_step": 5000}
    settings |= {"steps": 6, "checkpoints": 1, "learning_rate": 2e-2 if method == "lora" else 5e-3}
    losses = {}
    for name, start in (("one", None), ("again", None), ("two", tmp_path / "one/made/model")):
        folder = tmp_path / name
        folder.mkdir()
        given = spec(folder, base, settings=settings, start=start and str(start))
        status, events = run(given)
        assert status == 0, events[-1]
        assert events[-1]["result"]["start"] == ("previous" if start else "seed")
        losses[name] = events[-1]["result"]["losses"]
    assert losses["one"] == losses["again"]
    assert losses["two"][0] < losses["one"][-1] < losses["one"][0]
    made = tmp_path / "two" / "made" / "model"
    if method == "lora":
        assert json.loads((made / "adapter_config.json").read_text())[
            "base_model_name_or_path"
        ] == str(base)
    LocalEngine(made).close()


def test_the_reference_of_dpo_is_the_seed_also_when_going_on(
    tmp_path: Path, base: Path, run: Run
) -> None:
    """Without the NLL term the first loss is log 2 exactly where the model is its reference."""
    rows = str(write(tmp_path / "preferences.jsonl", preferences(12)))
    settings = {**SETTINGS, "objective": "sft_dpo", "nll_weight": 0, "tokens_per_step": 9000}
    settings |= {"steps": 4, "checkpoints": 1, "warmup_steps": 0}
    first = {}
    for method in ("full", "lora"):
        for name, start in (("one", None), ("two", tmp_path / f"{method}-one/made/model")):
            folder = tmp_path / f"{method}-{name}"
            folder.mkdir()
            changed = {"settings": {**settings, "method": method}, "examples_paths": [rows]}
            status, events = run(spec(folder, base, **changed, start=start and str(start)))
            assert status == 0, events[-1]
            first[method, name] = events[-1]["result"]["losses"][0]
        assert first[method, "one"] == pytest.approx(math.log(2), abs=1e-3)
        assert first[method, "two"] < 0.9 * math.log(2)


def test_an_existing_folder_is_never_overwritten(tmp_path: Path, base: Path, run: Run) -> None:
    made = tmp_path / "made" / "model"
    made.mkdir(parents=True)
    status, events = run(spec(tmp_path, base))
    assert (status, events[-1]["code"]) == (1, "output_exists")
    assert list(made.iterdir()) == []


def test_checkpoints_are_spread_evenly_and_end_with_the_last_step() -> None:
    assert checkpoints.steps(150, 3) == [50, 100, 150]
    assert checkpoints.steps(7, 2) == [4, 7]
    assert checkpoints.steps(1, 5) == [1]


def test_the_best_checkpoint_wins_and_the_later_one_of_equals() -> None:
    def point(step: int, strict: float, mean: float) -> Checkpoint:
        return Checkpoint(step, Path(), {"strict_accuracy": strict, "mean_accuracy": mean})

    assert checkpoints.choose([point(1, 0.8, 0.8), point(2, 0.7, 0.9)]).step == 1
    assert checkpoints.choose([point(1, 0.8, 0.8), point(2, 0.8, 0.9)]).step == 2
    assert checkpoints.choose([point(1, 0.8, 0.9), point(2, 0.8, 0.9)]).step == 2


def test_another_projects_template_of_the_same_name_is_not_taken(
    database: Servers, tmp_path: Path, base: Path, run: Run
) -> None:
    template = load_judge_template("smallworld").model_copy(update={"name": "mine"})
    row = {"name": "mine", "kind": "judge", "sha256": template.sha256}
    with transaction() as session:
        session.add_all([Project(id="red"), Project(id="blue")])
    for project in ("red", "blue"):
        with tenancy.inside(project), transaction() as session:
            session.add(StoredTemplate(**row, content=template.model_dump(mode="json")))
    nothing = [str(write(tmp_path / "none.jsonl", []))]  # what is complained of, once it is found
    given = spec(tmp_path, base, template="mine", project="red", choose_on_paths=nothing)
    code, [error] = run(given)
    assert (code, error["code"]) == (1, "bad_data") and "no pairs" in error["message"]
    code, [error] = run({**given, "template": "mine", "project": "default"})
    assert code == 1 and "unknown judge template" in error["message"]
