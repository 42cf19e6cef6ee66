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
- *bare*: one asyncio client with 256 samples in flight that knows all of fixed's requests
  beforehand: prompts as token ids, four samples of one in a request, as the platform sends them.
- *distilabel*: a pipeline of its own that samples N = 15, all prompts in one batch (see
  peers/distilabel_sampling.py), in an environment of its own.
- *script*: `model.generate` of transformers with N = 15 in .venv-trl: the same weights in another
  engine, so its tokens count and its time does not.

Seconds of the platform are a stage's, from its first chunk's start to its last one's end: Celery,
leases, Postgres, parsing and artifacts. Seconds of distilabel are those of `Pipeline.run`, without
imports, parsing or filter. Tokens are those that were written, as the server counts them. The
adaptive jobs open a turn, the others then rotate; vLLM's prefix cache is emptied before each of all
these.
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
from dataclasses import dataclass, replace
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
SCRIPTED = 48
"""So many inputs of a turn for the script, which is slow; ours are then the same ones."""
WAYS: dict[str, Json] = {
    "waves of 1": {"need": "right", "wave": 1},
    "waves of 4": {"need": "right", "wave": 4},
    "fixed": {"need": "all"},
}
PEERS = {
    "fixed": "the paper's N = 15, same platform",
    "bare": "bare asyncio client",
    "whole": "bare asyncio client, n = 15",
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
NOTES = [
    "Waves of 4 are the default. They ask 4 of 15 at least, 0.27 of the tokens, and come near that "
    "only with a judge that is nearly always right within the first wave; this one is the seed, as "
    "in a first iteration. Over the five iterations of a job, as the judge gets better, waves of 4 "
    "need 3.0 times fewer tokens than N = 15 and waves of 1 6.6 times, but the judge that waves of "
    "1 make was worse there ([results.md](results.md)), so 4 stays the default.",
    "distilabel 1.5.3 sends one request with n = 15 for an input, the platform three with n = 4 "
    "and one with n = 3; it sent 15 of n = 1 before, and a bare client was 1.12 times as fast with "
    "n = 4, 1.05 times with n = 8 and 1.04 times with n = 15 (4 turns). Again, quietly, in 7 "
    "turns: n = 8 was 1.01 times and n = 15 0.97 times as fast as n = 4. The bare client with "
    "n = 15 sends what distilabel sends.",
    "Where the platform loses to the bare client: in a quiet turn, by the server's own counts each "
    "0.4 s, both keep it full (102 to 128 of 128 sequences run, others wait) but for half a second "
    "at the start and half a second at the end, and both wrote 6,830 tokens/s. In other turns it "
    "loses to what shares the two cores: the pairs differ by more than the aim asks. Tried: four "
    "samples in a request, which made both sides faster and the ratio 0.93 instead of 0.91 (one "
    "turn of n = 1).",
    "Why 1.3 of distilabel is not there to be had with the same N: its requests, all in flight at "
    "once, keep the server full (128 sequences run and others wait, until the last second), and so "
    "do the platform's. The tokens a second of the bare clients are what the server can do; the "
    "rest of distilabel's time is the start of its processes, a few seconds however long it runs. "
    "Its default, batches of 50 prompts, was tried and is no slower here. What is faster is to ask "
    "less: the rows of kept examples.",
    "The time of distilabel's pipeline includes the start of its processes and its files; the "
    "platform's workers run before, and its files and rows are in its time. The row of the "
    "requests alone leaves out all of distilabel's own work but none of the platform's.",
    "In distilabel one request that fails loses its whole batch; the platform asks it again.",
    f"The script runs another engine and gets the first {SCRIPTED} inputs of a turn; ours in its "
    "row are the same ones. Its seconds are not compared.",
]


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
            sides = {"fixed": bench.fixed, "bare": bench.bare, "whole": bench.whole}
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

    tokens: Sequence[int]
    """Of each input."""
    right: Sequence[Sequence[bool]]
    """Of each input, its judgments."""
    seconds: float

    def first(self, inputs: int | None) -> Judged:
        """The same of the first inputs alone."""
        return replace(self, tokens=self.tokens[:inputs], right=self.right[:inputs])

    @property
    def kept(self) -> int:
        return sum(map(any, self.right))

    @property
    def cost(self) -> float:
        """Tokens for each kept input."""
        return sum(self.tokens) / self.kept

    @property
    def pace(self) -> float:
        """Kept inputs a second."""
        return self.kept / self.seconds

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return sum(self.tokens) / self.seconds


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
        """Whether these judgments of the first inputs are right; None was cut off."""
        return [
            [one is not None and parse_verdict(one, TEMPLATE) == LABELS[order] for one in found]
            for (_, order), found in zip(self.inputs, texts, strict=False)
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
        return self._straight(saturation.requests(self._turn("bare").job, self._home))

    def whole(self) -> float:
        """The same with one request for all N judgments of an input, as distilabel sends it."""
        return self._straight(saturation.requests(self._turn("whole").job, self._home, SAMPLES))

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
        sent = saturation.requests(turn.job, self._home, SAMPLES)
        given = [len(body["prompt"]) for body in sent]
        assert told["prompt_tokens"] == given, "the prompts are not the same"
        (turn.requests,) = told["batches"]
        found = Judged(told["tokens"], turn.right(told["texts"]), told["seconds"])
        turn.found["distilabel"] = found
        return found.speed

    def _straight(self, bodies: list[Json]) -> float:
        saturation.reset(self._url)
        began = time.perf_counter()
        sent = saturation.send(self._url, bodies, saturation.WINDOW, barrier=False)
        return asyncio.run(sent) / (time.perf_counter() - began)

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
        tokens: dict[tuple[str, str], int] = {}
        right: dict[tuple[str, str], list[bool]] = {}
        for row in jsonl.read(job.download(1, "judge", self._home / "judgments.jsonl")):
            key = row["pair_id"], row["order"]
            tokens[key] = tokens.get(key, 0) + row["completion_tokens"]
            right.setdefault(key, []).append(row["verdict"] == row["label"])
        return Judged(list(tokens.values()), list(right.values()), stage.seconds)


def run(program: Path, script: str, task: Json, folder: Path) -> Any:
    """What a peer's script tells about a task, as its last line."""
    file = folder / "task.json"
    file.write_text(json.dumps(task))
    command = [str(program), str(HERE / script), str(file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def by_script(turns: Sequence[Turn], folder: Path) -> None:
    """The first prompts of all turns, one turn after another, in one process."""
    task = {
        "model": str(SEED),
        "batches": [turn.prompts[:SCRIPTED] for turn in turns],
        "samples": SAMPLES,
        "sampling": SAMPLING,
    }
    for turn, told in zip(turns, run(TRL, "trl_sampling.py", task, folder), strict=True):
        turn.found["script"] = Judged(told["tokens"], turn.right(told["texts"]), told["seconds"])


def tell(turns: Sequence[Turn], speeds: dict[str, list[float]], missing: dict[str, str]) -> None:
    """Publish rows and notes; `missing`: why a peer has no figures."""

    def of(side: str, figure: Callable[[Judged], Any]) -> list[Any]:
        return [figure(turn.found[side]) for turn in turns if side in turn.found]

    def row(
        what: str, unit: str, side: str, ours: list[float], theirs: list[float], **aim: float
    ) -> Row:
        gone = missing.get(side)
        return Row(what, PEERS[side], unit, [] if gone else ours, theirs, missing=gone, **aim)

    rows = []
    for way, side in COMPARED:
        what = f"{way}: written tokens per kept example"
        inputs = SCRIPTED if side == "script" else None
        ours = [one.first(inputs).cost for one in of(way, lambda one: one)]
        rows.append(row(what, "tokens", side, ours, of(side, lambda one: one.cost), at_most=FEWER))
    what, ours = "judge stage with N = 15", speeds.get("fixed", [])
    for side, aim in (
        ("bare", {"at_least": BUSY}),
        ("distilabel", {"at_least": BUSIER}),
        ("whole", {}),
    ):
        rows.append(row(what, "tokens/s", side, ours, speeds.get(side, []), **aim))
    alone = [
        sum(turn.found["distilabel"].tokens) / turn.requests for turn in turns if turn.requests
    ]
    rows.append(row(f"{what}, its requests alone", "tokens/s", "distilabel", ours, alone))
    theirs = of("distilabel", lambda one: one.pace)
    for way in ("waves of 4", "waves of 1"):
        ours = of(way, lambda one: one.pace)
        rows.append(row(f"{way}: kept examples", "examples/s", "distilabel", ours, theirs))
    publish("tokens", rows, notes(turns) if turns else [])


def notes(turns: Sequence[Turn]) -> list[str]:
    """What each side wrote, absolutely, and what is to be known beside."""
    inputs = sum(len(turn.inputs) for turn in turns)
    told = [f"{inputs // 2:,} pairs in both orders, {inputs:,} inputs, in {len(turns)} turns."]
    for side in turns[0].found:
        found = [turn.found[side] for turn in turns]
        asked = [any(one) for each in found for one in each.right]
        judgments = [right for each in found for one in each.right for right in one]
        told.append(
            f"{side}: {len(asked):,} inputs, {len(judgments):,} judgments, "
            f"{sum(sum(each.tokens) for each in found):,} tokens; "
            f"{sum(judgments) / len(judgments):.1%} of the judgments are right, "
            f"{sum(asked) / len(asked):.1%} of the inputs are kept; "
            f"{statistics.median(each.seconds for each in found):.1f} s a turn."
        )
    return told + NOTES


if __name__ == "__main__":
    main()
