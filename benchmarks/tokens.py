"""How many tokens a kept example costs, and how busy the engine is meanwhile.

    make test-vllm check-trl        build .venv-vllm and .venv-trl (once)
    python -m benchmarks.tokens [TURNS]

The shipped seed judges pairs of the small world in both orders; all sides get the same prompts and
sampling, and vLLM is one server for all that use it. An *input* is a pair in one order; it is
*kept* if at least one of its judgments is right, and one parser, ours, reads the judgments of all
sides. Each turn has pairs of its own, made by a job whose seed is the turn's number.

- *adaptive*: a job's judge stage that asks an input in waves and stops at its first right judgment
  (`judge.need: right`), in waves of 1 and of 4 (the default); N is at most 15.
- *fixed*: the same stage with the paper's N = 15 judgments of each input (`judge.need: all`).
- *bare*: one asyncio client with 256 requests in flight that knows all of fixed's requests
  beforehand, prompts as token ids and n = 1, as the platform sends them.
- *distilabel*: a pipeline of its own that samples N = 15, all prompts in one batch (see
  peers/distilabel_sampling.py), in an environment of its own.
- *script*: `model.generate` of transformers with N = 15 in .venv-trl: the same weights in another
  engine, so its tokens count and its time does not.

Seconds of the platform are a stage's, from its first chunk's start to its last one's end: Celery,
leases, Postgres, parsing and artifacts. Seconds of distilabel are those of `Pipeline.run`, without
imports, parsing or filter. Tokens are those that were written, as the server counts them. The
adaptive jobs open a turn, fixed, bare and distilabel then rotate; vLLM's prefix cache is emptied
before each of all these.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import saturation
from benchmarks.frame import PAIRS, ROOT, Row, in_turns, publish
from benchmarks.peers import HERE, PeerMissing, python
from selftaught import jsonl
from selftaught.client import Client, Job
from selftaught.judging import ORDERS, Order, load_judge_template, parse_verdict
from selftaught.stack.handle import Stack
from services.generator.judge import LABELS

Json = dict[str, Any]
SEED = ROOT / "seeds" / "smallworld"
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
TRL = ROOT / ".venv-trl" / "bin" / "python"
TEMPLATE = load_judge_template("smallworld")
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 64}
SAMPLES = 15
INSTRUCTIONS = 128
"""A turn; each becomes a pair, less some that are unusable."""
CHUNK = 16
WAYS: dict[str, Json] = {
    "waves of 1": {"need": "right", "wave": 1},
    "waves of 4": {"need": "right", "wave": 4},
    "fixed": {"need": "all"},
}
PEERS = {
    "fixed": "the paper's N = 15, same platform",
    "bare": "bare asyncio client",
    "distilabel": "distilabel, N = 15",
    "script": "script with transformers' generate, N = 15",
}
COMPARED = [
    ("waves of 1", "fixed"),
    ("waves of 1", "distilabel"),
    ("waves of 1", "script"),
    ("waves of 4", "fixed"),
]
FEWER, BUSY, BUSIER = 0.333, 0.95, 1.3
"""The aims."""


def main() -> None:
    """Five turns, and what came out."""
    missing: dict[str, str] = {}
    if not VLLM.exists():
        return tell([], {}, dict.fromkeys(PEERS, "no .venv-vllm; `make test-vllm` builds it"))
    peer = None
    try:
        peer = python("distilabel")
    except PeerMissing as error:
        missing["distilabel"] = str(error)
    env = {
        "SELFTAUGHT_VLLM_PYTHON": str(VLLM),
        "SELFTAUGHT_DEVICES": "cpu0,cpu1",
        "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache; the server is on loopback
    }
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with (
            Stack(home, generator_workers=saturation.WORKERS, env=env) as stack,
            Client(stack.gateway_url) as client,
        ):
            try:
                bench = Bench(stack, client, home, peer)
            except SystemExit as error:
                return tell([], {}, dict.fromkeys(PEERS, f"vLLM does not run: {error}"))
            sides = {"fixed": bench.fixed, "bare": bench.bare}
            if peer is not None:
                sides["distilabel"] = bench.distilabel
            speeds = in_turns(sides, int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)
        if TRL.exists():
            by_script(bench.turns, home)
        else:
            missing["script"] = "no .venv-trl; `make check-trl` builds it"
    tell(bench.turns, speeds, missing)


@dataclass(frozen=True)
class Judged:
    """What a side wrote about a turn's inputs."""

    tokens: int
    seconds: float
    right: Sequence[Sequence[bool]]
    """Of each input, its judgments."""

    @property
    def kept(self) -> int:
        return sum(map(any, self.right))

    @property
    def cost(self) -> float:
        """Tokens for each kept input."""
        return self.tokens / self.kept

    @property
    def pace(self) -> float:
        """Kept inputs a second."""
        return self.kept / self.seconds

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


class Turn:
    """The pairs of a turn, and what the sides made of them, by name."""

    def __init__(self, job: Job, pairs: list[Json]) -> None:
        self.job = job
        self.pairs = pairs
        self.inputs: list[tuple[Json, Order]] = [(one, order) for one in pairs for order in ORDERS]
        self.found: dict[str, Judged] = {}
        self.requests = 0.0
        """Seconds of distilabel's requests alone."""

    @property
    def prompts(self) -> list[str]:
        return [TEMPLATE.show(pair, order)[0]["content"] for pair, order in self.inputs]

    def right(self, texts: Sequence[Sequence[str | None]]) -> list[list[bool]]:
        """Whether these judgments of the inputs are right; None was cut off."""
        return [
            [one is not None and parse_verdict(one, TEMPLATE) == LABELS[order] for one in found]
            for (_, order), found in zip(self.inputs, texts, strict=True)
        ]


class Bench:
    """The sides that vLLM serves, all by one server."""

    def __init__(self, stack: Stack, client: Client, home: Path, peer: Path | None) -> None:
        self.turns: list[Turn] = []
        self._stack, self._client, self._home, self._peer = stack, client, home, peer
        self._data = client.datasets.upload(SEED / "data" / "instructions.jsonl").id
        self._calls: Counter[str] = Counter()
        self._url = ""
        self._judge(10**6, "fixed")  # starts the server; the workers load what they need

    def fixed(self) -> float:
        """Tokens a second of the judge stage with N = 15."""
        turn = self._turn("fixed")
        return self._by_job(turn, "fixed").speed

    def bare(self) -> float:
        """Tokens a second of an asyncio client that sends the same requests."""
        turn = self._turn("bare")
        bodies = saturation.requests(turn.job, self._home)
        saturation.reset(self._url)
        began = time.perf_counter()
        tokens = asyncio.run(saturation.send(self._url, bodies, saturation.WINDOW, barrier=False))
        return tokens / (time.perf_counter() - began)

    def distilabel(self) -> float:
        """Tokens a second of its pipeline."""
        turn = self._turn("distilabel")
        task = {
            "url": f"{self._url}/v1",
            "model": SEED.name,
            "prompts": turn.prompts,
            "samples": SAMPLES,
            "sampling": SAMPLING,
        }
        assert self._peer is not None
        saturation.reset(self._url)
        told = run(self._peer, "distilabel_sampling.py", task, self._home)
        given = [len(body["prompt"]) for body in saturation.requests(turn.job, self._home)]
        assert told["prompt_tokens"] == given[::SAMPLES], "the prompts are not the same"
        (turn.requests,) = told["batches"]
        found = Judged(told["tokens"], told["seconds"], turn.right(told["texts"]))
        turn.found["distilabel"] = found
        return found.speed

    def _turn(self, side: str) -> Turn:
        """The one that a side is now to be measured in; the adaptive ones open it."""
        number = self._calls[side]
        self._calls[side] += 1
        if number == len(self.turns):
            ways = [way for way in WAYS if way != "fixed"]
            job = self._judge(number, ways[0])
            turn = Turn(job, self._pairs(job))
            self.turns.append(turn)
            turn.found[ways[0]] = self._judged(job)
            for way in ways[1:]:
                self._by_job(turn, way)
        return self.turns[number]

    def _by_job(self, turn: Turn, way: str) -> Judged:
        """Another job with this turn's pairs."""
        job = self._judge(turn.job.recipe["seed"], way)
        assert self._pairs(job) == turn.pairs, "the pairs are not the same"
        found = turn.found[way] = self._judged(job)
        return found

    def _judge(self, seed: int, way: str) -> Job:
        """A job as far as the end of its judge stage. Raises SystemExit."""
        settings: Json = {
            "inference": "vllm",
            # Pairs by transformers, in chunks that are always the same: all jobs with a seed have
            # the same pairs.
            "generator": {"base_model": SEED.name, "inference": "local"},
            "iterations": 1,
            "chunk_size": CHUNK,
            "seed": seed,
            "pair": {"instructions": INSTRUCTIONS},
            "judge": {"samples": SAMPLES, "sampling": SAMPLING, **WAYS[way]},
            "validate": {"instructions": 8},
        }
        job = self._client.jobs.create(
            self._data, recipe="quickstart", overrides=settings, model="tokens"
        )
        self._url = saturation.reset_before_judging(self._stack, job)
        for event in job.events():
            if event.type == "job.failed":
                raise SystemExit(event.data)
            if event.type == "stage.succeeded" and event.data["stage"] == "judge":
                break
        job.cancel()
        while not job.refresh().ended:
            time.sleep(0.1)
        return job

    def _pairs(self, job: Job) -> list[Json]:
        return list(jsonl.read(job.download(1, "pair", self._home / "pairs.jsonl")))

    def _judged(self, job: Job) -> Judged:
        """What its judge stage wrote."""
        (stage,) = [one for one in list(job.iterations())[1].stages if one.kind == "judge"]
        assert stage.seconds is not None, "it has ended"
        right: dict[tuple[str, str], list[bool]] = {}
        for row in jsonl.read(job.download(1, "judge", self._home / "judgments.jsonl")):
            verdicts = right.setdefault((row["pair_id"], row["order"]), [])
            verdicts.append(row["verdict"] == row["label"])
        return Judged(stage.counts["tokens"], stage.seconds, list(right.values()))


def run(program: Path, script: str, task: Json, folder: Path) -> Any:
    """What a peer's script tells about a task, as its last line."""
    file = folder / "task.json"
    file.write_text(json.dumps(task))
    command = [str(program), str(HERE / script), str(file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def by_script(turns: Sequence[Turn], folder: Path) -> None:
    """All turns' prompts, one after another, in one process."""
    task = {
        "model": str(SEED),
        "batches": [turn.prompts for turn in turns],
        "samples": SAMPLES,
        "sampling": SAMPLING,
    }
    for turn, told in zip(turns, run(TRL, "trl_sampling.py", task, folder), strict=True):
        turn.found["script"] = Judged(told["tokens"], told["seconds"], turn.right(told["texts"]))


def tell(turns: Sequence[Turn], speeds: dict[str, list[float]], missing: dict[str, str]) -> None:
    """Publish rows and notes; `missing`: why a peer has no figures."""

    def of(side: str, figure: Callable[[Judged], float]) -> list[float]:
        return [figure(turn.found[side]) for turn in turns if side in turn.found]

    def row(
        what: str, unit: str, side: str, ours: list[float], theirs: list[float], **aim: float
    ) -> Row:
        gone = missing.get(side)
        return Row(what, PEERS[side], unit, [] if gone else ours, theirs, missing=gone, **aim)

    rows = []
    for way, side in COMPARED:
        what = f"{way}: written tokens per kept example"
        ours, theirs = of(way, lambda one: one.cost), of(side, lambda one: one.cost)
        rows.append(row(what, "tokens", side, ours, theirs, at_most=FEWER))
    what, ours = "judge stage with N = 15", speeds.get("fixed", [])
    for side, aim in (("bare", BUSY), ("distilabel", BUSIER)):
        rows.append(row(what, "tokens/s", side, ours, speeds.get(side, []), at_least=aim))
    alone = [turn.found["distilabel"].tokens / turn.requests for turn in turns if turn.requests]
    what += ", its requests alone"
    rows.append(row(what, "tokens/s", "distilabel", ours, alone))
    ours, theirs = of("waves of 1", lambda one: one.pace), of("distilabel", lambda one: one.pace)
    rows.append(row("waves of 1: kept examples", "examples/s", "distilabel", ours, theirs))
    publish("tokens", rows, notes(turns) if turns else [])


def notes(turns: Sequence[Turn]) -> list[str]:
    """What each side wrote, absolutely, and what is to be known beside."""
    inputs = sum(len(turn.inputs) for turn in turns)
    told = [f"{inputs // 2:,} pairs in both orders, {inputs:,} inputs, in {len(turns)} turns."]
    for side in turns[0].found:
        found = [turn.found[side] for turn in turns]
        judgments = [right for one in found for of in one.right for right in of]
        told.append(
            f"{side}: {len(judgments):,} judgments, {sum(one.tokens for one in found):,} tokens; "
            f"{100 * sum(judgments) / len(judgments):.1f} % of the judgments are right, "
            f"{100 * sum(one.kept for one in found) / inputs:.1f} % of the inputs are kept; "
            f"{statistics.median(one.seconds for one in found):.1f} s a turn."
        )
    return told


if __name__ == "__main__":
    main()
