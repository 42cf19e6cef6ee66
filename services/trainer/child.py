"""One training run in a process of its own: python -m services.trainer.child SPEC.json

CUDA memory is free for certain when it ends, and cancelling it is a SIGTERM to one's own child. It
speaks JSON lines on stdout: {"type": "resumed", step, steps} if it goes on with a run that was
stopped, {"type": "step", step, steps, loss, learning_rate, step_seconds} (the mean of its steps so
far), {"type": "checkpoint", step, summary}, and last {"type": "done", "result"} with exit status 0,
or {"type": "error", code, message} with 1.
Nothing else is written there. On several devices it starts a process for each, which trains (see
ranks.py), and itself scores the checkpoints when they have ended. It stops on SIGTERM, and when its
standard input ends, which says that the parent is gone. The output folder appears complete, by a
rename, or not at all.

Checkpoints and the run's state lie in the spec's `work_dir`. It is removed when the run has ended,
well or with an error; a run that was stopped or killed, or had no room for its files, leaves it,
and the same spec goes on there.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from selftaught import disk, jsonl, logs, telemetry, tenancy
from selftaught.artifacts import sync_folder
from selftaught.contracts import TrainSettings
from selftaught.inference import ModelLoadError
from selftaught.registry import judge_template
from selftaught.settings import get_settings
from services.trainer.base import QuantizationUnavailable, check_quantization

if TYPE_CHECKING:
    from services.trainer.ranks import Ranks

STORAGE_FULL = "storage_full"
"""The code of an error that may not come again; the run's state is kept."""

_events = 1  # the file descriptor that the parent reads


class Spec(BaseModel):
    """What to train. Paths are local; `output_dir` must not exist. `base_model` is the seed: the
    reference of DPO, and what the training starts from unless `start` names the folder of an
    earlier version. `examples_paths` have what the objective learns from: the `examples` or the
    `preferences` that curation made. Of the pairs {id, instruction, chosen, rejected} to choose on
    (rows of all files, in order) every second one, from the first on, chooses the checkpoint; the
    others are left to the gate. `max_tokens` limits a greedy judgment. `project`: whose template it
    is; another may have one of the same name."""

    model_config = ConfigDict(extra="forbid")

    base_model: Path
    start: Path | None = None
    examples_paths: list[Path]
    choose_on_paths: list[Path]
    template: str
    project: str | None
    output_dir: Path
    work_dir: Path
    settings: TrainSettings
    max_tokens: int
    seed: int


class Failure(Exception):
    """An expected way to fail, with its code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(spec: Spec) -> dict[str, Any]:
    """Train, score the checkpoints, publish the best one; the result for "done"."""
    if spec.output_dir.exists():
        raise Failure("output_exists", f"{spec.output_dir.name} exists already")
    check_quantization(spec.settings)
    spec.output_dir.parent.mkdir(parents=True, exist_ok=True)
    spec.work_dir.mkdir(parents=True, exist_ok=True)
    try:
        result = _train_and_publish(spec)
    except Exception as error:  # it would come again; being told to stop is no Exception
        if _code(error) == STORAGE_FULL:  # what was saved before is gone on from
            _remove_unfinished(spec.work_dir)
        else:
            shutil.rmtree(spec.work_dir)
        raise
    shutil.rmtree(spec.work_dir)
    return result


def _train_and_publish(spec: Spec) -> dict[str, Any]:
    from services.trainer import checkpoints, ranks

    with tenancy.inside(spec.project):
        template = judge_template(spec.template)
    judged = [row for path in spec.choose_on_paths for row in jsonl.read(path)][::2]
    if not judged:
        raise Failure("bad_data", "no pairs to choose a checkpoint with")
    settings = spec.settings
    if settings.devices == 1:
        trained = _train(spec, ranks.ALONE)
    else:
        trained = ranks.run(spec.model_dump_json(), settings.devices, lambda event: say(**event))
    scored = []
    for step in checkpoints.steps(trained["steps"], settings.checkpoints):
        folder = spec.work_dir / str(step)
        scored.append(
            checkpoints.score(step, folder, judged, template, spec.max_tokens, settings.quantize)
        )
        say(type="checkpoint", step=step, summary=scored[-1].summary)
    best = checkpoints.choose(scored)
    best.path.rename(spec.output_dir)
    return {
        **trained,
        "checkpoint": {"step": best.step, **best.summary},
        "checkpoints": [{"step": c.step, **c.summary} for c in scored],
        "chosen_on_pairs": len(judged),
    }


def _train(spec: Spec, ranks: Ranks) -> dict[str, Any]:
    """Train and save each checkpoint as work_dir/<step>; what was done. Frees the model. Of several
    ranks the first one speaks and writes."""
    from services.trainer import checkpoints, loop
    from services.trainer.state import State

    settings = spec.settings
    model, tokenizer, items, too_long = _load(spec, ranks)
    total = loop.total_steps(items, settings, spec.seed)
    due = checkpoints.steps(total, settings.checkpoints)

    first: list[tuple[int, float]] = []  # a step of this process, and when it was done

    def on_step(step: int, loss: float, rate: float) -> None:
        if not first:
            first.append((step, time.monotonic()))
        if ranks.first:
            say(
                type="step",
                step=step,
                steps=total,
                loss=loss,
                learning_rate=rate,
                step_seconds=_pace(first[0], step),
            )
        if step in due:
            weights = ranks.trained_weights(model)
            if ranks.first:
                _save_checkpoint(model, weights, tokenizer, spec.work_dir / str(step))

    which = spec.model_dump_json(exclude={"output_dir", "work_dir"})
    state = State(spec.work_dir / "state.pt", settings.save_every, which, ranks)
    if ranks.first:
        saved = state.saved_step()
        if saved is not None and all((spec.work_dir / str(s)).is_dir() for s in due if s <= saved):
            say(type="resumed", step=saved, steps=total)
        else:
            state.file.unlink(missing_ok=True)
    ranks.wait()
    trained = loop.train(model, items, settings, spec.seed, on_step, state, ranks)
    return {
        "objective": settings.objective,
        "start": "seed" if spec.start is None else "previous",
        "examples_too_long": too_long,
        **asdict(trained),
        "final_loss": trained.losses[-1],
        "curve": loop.curve(trained.losses, total, settings),
    }


def _pace(first: tuple[int, float], step: int) -> float | None:
    """Mean seconds of the steps behind the `first` (its number, when it was done); None of none."""
    number, done = first
    return (time.monotonic() - done) / (step - number) if step > number else None


def _load(spec: Spec, ranks: Ranks) -> tuple[Any, Any, list[Any], int]:
    """The model to train, its tokenizer, what it learns from, and how many rows were too long."""
    from selftaught.inference.local import load_model
    from services.trainer import data, loop, objectives

    settings = spec.settings
    place: Literal["one", "cpu"] = "one" if ranks.count == 1 else "cpu"
    model, tokenizer = load_model(spec.base_model, settings.quantize, place)
    bf16 = objectives.in_bf16(settings, ranks.device)
    most = int(getattr(model.config, "max_position_embeddings", 2**31))
    rows = (row for path in spec.examples_paths for row in jsonl.read(path))
    items: list[Any]
    if settings.objective == "sft":
        items, too_long = data.tokenise(rows, tokenizer, most)
    else:
        pairs, too_long = data.tokenise_preferences(rows, tokenizer, most)
        model = ranks.shard(loop.in_own_dtype(model, settings), bf16)
        items = list(objectives.with_references(model, pairs, settings, ranks))
        if ranks.count > 1:  # an adapter comes before sharding
            del model
            model, _ = load_model(spec.base_model, settings.quantize, place)
    if spec.start is not None and settings.method == "full":
        del model
        model, _ = load_model(spec.start, settings.quantize, place)
    adapter = spec.start if settings.method == "lora" else None
    model = ranks.shard(loop.prepare(model, settings, spec.seed, adapter), bf16)
    return model, tokenizer, items, too_long


def _save_checkpoint(
    model: Any, weights: dict[str, Any] | None, tokenizer: Any, folder: Path
) -> None:
    """Whole or absent, as the state that will count on it. `weights`: None for the model's own."""
    unfinished = folder.with_name(f".{folder.name}")
    for left in (unfinished, folder):  # by a process that was killed behind its last saved state
        shutil.rmtree(left, ignore_errors=True)
    for adapter in getattr(model, "peft_config", {}).values():
        # PEFT keeps a set, whose order is another one in every process: equal adapters would have
        # different hashes.
        adapter.target_modules = sorted(adapter.target_modules)
    model.save_pretrained(unfinished, state_dict=weights)
    tokenizer.save_pretrained(unfinished)
    _sync(unfinished)
    unfinished.rename(folder)
    sync_folder(folder.parent)


def _remove_unfinished(work_dir: Path) -> None:
    """Remove what was being written when there was no room for it."""
    for file in work_dir.glob("*.tmp"):
        file.unlink()
    for folder in work_dir.glob(".*"):
        shutil.rmtree(folder)


def say(**event: Any) -> None:
    """One line to the parent."""
    line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
    while line:
        line = line[os.write(_events, line) :]


def _keep_stdout() -> int:
    """A private copy of standard output for events; whatever else is printed goes to stderr."""
    events = os.dup(1)
    os.dup2(2, 1)
    return events


def _sync(folder: Path) -> None:
    """Force a folder's files to disk, so that the rename publishes whole files."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _watch_parent(silence: float) -> None:
    """Stop when standard input ends; or, of a parent that has given a sign of life, when it gives
    none for so many seconds."""
    limit = None
    # Not sys.stdin: its lock would outlive the main thread.
    while select.select([0], [], [], limit)[0] and os.read(0, 4096):
        limit = silence
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _code(error: Exception) -> str:
    """The code of a failure, for the parent and the job's owner."""
    import torch

    from services.trainer.loop import NanLoss
    from services.trainer.ranks import UNTYPED, RankFailed

    if isinstance(error, (Failure, RankFailed)):
        return error.code
    if disk.is_full(error):
        return STORAGE_FULL
    codes: list[tuple[type[Exception], str]] = [
        (ModelLoadError, "model_load_failed"),
        (QuantizationUnavailable, "quantization_unavailable"),
        (NanLoss, "nan_loss"),
        (MemoryError, "out_of_memory"),
        (torch.OutOfMemoryError, "out_of_memory"),
        (ValueError, "bad_data"),
    ]
    return next((code for kind, code in codes if isinstance(error, kind)), UNTYPED)


def report(spec_file: Path) -> int:
    """Run a spec, telling how it goes; the exit status: 0 after "done", 1 after "error"."""
    try:
        spec = Spec.model_validate_json(spec_file.read_bytes())
        with telemetry.span("train", parent=os.environ.get(telemetry.VARIABLE)):
            say(type="done", result=run(spec))
    except ValidationError as error:
        say(type="error", code="bad_spec", message=str(error))
        return 1
    except Exception as error:  # noqa: BLE001 - the process's border: a failure leaves as an event
        say(type="error", code=_code(error), message=_message(error))
        return 1
    return 0


def _message(error: Exception) -> str:
    from services.trainer.ranks import RankFailed

    return str(error) if isinstance(error, RankFailed) else f"{type(error).__name__}: {error}"


def report_rank(spec_file: Path, number: int) -> int:
    """One rank of a training: rank 0 tells how it goes and at last {"type": "trained", "result"},
    any of them {"type": "error", code, message}; the exit status."""
    from services.trainer import ranks

    try:
        spec = Spec.model_validate_json(spec_file.read_bytes())
        with ranks.joined(number, spec.settings.devices, spec_file.parent) as joined:
            trained = _train(spec, joined)
        if joined.first:
            say(type="trained", result=trained)
    except Exception as error:  # noqa: BLE001 - as above
        say(type="error", code=_code(error), message=_message(error))
        return 1
    return 0


if __name__ == "__main__":
    _events = _keep_stdout()
    logs.setup()
    telemetry.setup()
    silence = get_settings().lease_seconds  # a worker that is frozen for so long has lost its lease
    threading.Thread(target=_watch_parent, args=[silence], daemon=True).start()
    if len(sys.argv) > 2:  # SPEC.json RANK; SIGTERM ends it at once, also while it waits for others
        os._exit(report_rank(Path(sys.argv[1]), int(sys.argv[2])))
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(report(Path(sys.argv[1])))
