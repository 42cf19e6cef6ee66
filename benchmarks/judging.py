"""Judging a benchmark: ours against RewardBench's own generative runner and prometheus-eval's.

    python -m benchmarks.judging

All judge the same rows (RewardBench's, of its subsets in data/pairs of SELFTAUGHT_SHARED, default:
../shared beside the checkout, so many of each) over the same server with the same prompts to the
byte: ours asks with the peer's prompt, uploaded as a template. The server is the stand-in of
benchmarks/standin.py, so the clients are measured and no model: each answer takes the same time, so
many are answered at once, and the verdicts follow from the prompt's bytes.

Seconds of ours: from the upload of the rows to the scores, through gateway, queue and worker of a
stack that runs (*platform*); or from their file to the scores in this process, without the platform
(*library*). Seconds of the peers: their runs without start and imports. RewardBench has as many
threads as the server has places (its default, 10, is no faster). prometheus-eval asks in three
ways: `LiteLLM` as shipped, one call at a time; `AsyncLiteLLM` without its limit of requests a
minute; and LiteLLM's call in as many threads as there are places, a way that is ours and not its.

These must be equal, or this fails. RewardBench, with a seed and one thread, and ours, with scoring
`official` and ids from which the same orders follow: the prompts, and each subset's and section's
score. Each verdict of RewardBench's timed runs, whose orders have no seed, and ours in that order.
prometheus-eval's prompts and each subset's score, and ours, whose orders it is given.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks import peers
from benchmarks.frame import ROOT, Row, in_turns, publish
from benchmarks.judge_latency import ONLY, Judged, register
from selftaught import jsonl
from selftaught.benchmarks import rewardbench
from selftaught.benchmarks.base import AB, BA, Answer, Example, Judgments, Shown, drawn_order
from selftaught.benchmarks.catalogue import load
from selftaught.client import Client
from selftaught.contracts import EvaluationSettings, SamplingSettings, Scoring
from selftaught.inference.openai import OpenAIEngine
from selftaught.judging import JudgeTemplate, parse_template
from selftaught.stack.handle import Stack
from selftaught.stack.state import free_port
from services.evaluator import evaluation

DATA = Path(os.environ.get("SELFTAUGHT_SHARED", ROOT.parent / "shared")) / "data" / "pairs"
FILES = ("llmbar", "xstest_pairs", "humanevalpack")
"""Rows of RewardBench, under its own names of subsets."""
OF_EACH = 20
SECONDS, PLACES = 0.02, 32
MAX_TOKENS = 2048
"""Of an answer, as RewardBench asks; greedy."""
SEED = 0
MODEL = "smallworld"
WAYS = {
    "LiteLLM": "LiteLLM, one at a time",
    "AsyncLiteLLM": "AsyncLiteLLM, all at once",
    "threads": f"LiteLLM in {PLACES} threads (our way)",
}
UNIT = "s/example"
MARKS = {"rewardbench": ("[[A]]", "[[B]]"), "prometheus": ("[RESULT] A", "[RESULT] B")}
PEERS_ENV = {
    "OPENAI_API_KEY": "none",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network at import
}
Json = dict[str, Any]
Measured = tuple[list[Row], list[str]]


class Different(Exception):
    """What must be equal is not."""


def main() -> None:
    """Measure, compare, publish."""
    measures = {"RewardBench": against_rewardbench, "prometheus-eval": against_prometheus}
    rows: list[Row] = []
    notes = [
        f"The engine is a stand-in: {1000 * SECONDS:.0f} ms an answer, {PLACES} at once, no model. "
        "So the clients are measured; behind a judge who takes seconds all of them matter less."
    ]
    if lacking := [f"{name}.jsonl" for name in FILES if not (DATA / f"{name}.jsonl").exists()]:
        why = f"there is no {', '.join(lacking)} in data/pairs of SELFTAUGHT_SHARED"
        publish("judging", [_missing(peer, why) for peer in measures])
        return
    with tempfile.TemporaryDirectory() as home, opened(Path(home)) as bench:
        for peer, measure in measures.items():
            try:
                found, told = measure(bench)
            except peers.PeerMissing as error:
                rows.append(_missing(peer, str(error)))
            else:
                rows += found
                notes += told
    publish("judging", rows, notes)


def _missing(peer: str, why: str) -> Row:
    return Row("judging a benchmark", peer, UNIT, [], [], missing=why)


@dataclass(frozen=True)
class Run:
    """One side's run over all rows: seconds for each, the sum of its prompts' checksums, scores."""

    seconds: float
    asked: int
    scores: Mapping[str, float]


@dataclass
class Bench:
    """The rows, the server, and the platform that asks it. `answered`, `asked`: so far."""

    home: Path
    url: str
    client: Client
    rows: list[Json]
    answered: int = 0
    asked: int = 0

    @property
    def file(self) -> Path:
        return self.home / "rows.jsonl"

    def renamed(self, ids: list[str]) -> None:
        """Give the rows these ids, and write their file."""
        self.rows = [{**row, "id": name} for row, name in zip(self.rows, ids, strict=True)]
        self.file.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def examples(self) -> list[Example]:
        return load(self.file, rewardbench.NAME)[1]

    def template(self, name: str, found: Json) -> JudgeTemplate:
        """A peer's prompt as a template of ours, uploaded."""
        verdicts = dict(zip("AB", MARKS[name], strict=True))
        given = {"name": name, "kind": "judge", "verdicts": verdicts, **found["template"]}
        self.client.templates.create(given)
        template = parse_template(given)
        assert isinstance(template, JudgeTemplate)
        return template

    def since(self, times: int = 1) -> int:
        """The checksum of all that was asked since the last call: each row, so many times."""
        now = httpx.get(self.url.removesuffix("/v1") + "/count").json()
        answered, asked = now["answered"] - self.answered, now["asked"] - self.asked
        self.answered, self.asked = now["answered"], now["asked"]
        if answered != times * len(self.rows):
            raise Different(f"{answered} answers to {times} x {len(self.rows)} questions")
        return int(asked)

    def platform(self, template: JudgeTemplate) -> Run:
        """Upload, evaluate, wait for the scores."""
        began = time.perf_counter()
        dataset = self.client.datasets.upload(self.file, "benchmark")
        evaluation = self.client.evaluations.create(
            dataset.id,
            "judge:0",
            scoring=["official"],
            template=template.name,
            seed=SEED,
            max_tokens=MAX_TOKENS,
        ).wait(600)
        seconds = time.perf_counter() - began
        (score,) = evaluation.scores
        figures = {figure.name: figure.value for figure in score.figures}
        return Run(seconds / len(self.rows), self.since(), figures)

    def library(self, template: JudgeTemplate) -> Run:
        """The same in this process, from the file to the scores."""
        began = time.perf_counter()
        benchmark, examples = load(self.file)
        asked = settings(template, ["official"])
        answers = self.ask(examples, template, asked)
        templates = evaluation.Templates(template)
        (score,) = evaluation.scores(examples, answers, benchmark, templates, asked)
        seconds = time.perf_counter() - began
        figures = {name: figure.value for name, figure in score.figures.items()}
        return Run(seconds / len(self.rows), self.since(), figures)

    def ask(
        self, examples: list[Example], template: JudgeTemplate, asked: EvaluationSettings
    ) -> list[jsonl.Row]:
        """The rows of evaluation.ask."""
        sampling = SamplingSettings(temperature=0, max_tokens=asked.max_tokens)
        engine = OpenAIEngine(self.url, MODEL)
        templates = evaluation.Templates(template)
        return evaluation.ask(examples, rewardbench.BENCHMARK, engine, templates, asked, sampling)[
            0
        ]

    def peer(self, python: Path, name: str, **task: Any) -> Json:
        """What NAME_judge.py printed last; besides `whole`, seconds with start and imports."""
        file = self.home / f"{name}.json"
        file.write_text(json.dumps({"url": self.url, "model": MODEL, **task}))
        script = ROOT / "benchmarks" / "peers" / f"{name}_judge.py"
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        began = time.perf_counter()
        done = subprocess.run(
            [str(python), str(script), str(file)],
            env=env | PEERS_ENV,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} ended with {done.returncode}: {done.stderr[-2000:]}")
        found: Json = json.loads(done.stdout.splitlines()[-1])
        return {**found, "whole": time.perf_counter() - began}


def against_rewardbench(bench: Bench) -> Measured:
    """Gives the rows the ids from which RewardBench's orders follow."""
    python = peers.python("rewardbench")
    exact = bench.peer(python, "rewardbench", rows=bench.rows, threads=1, seed=SEED)
    prompts = bench.since()
    first = {(prompt, shown) for prompt, shown, _, _ in exact["judged"]}
    bench.renamed([named(row, (row["prompt"], row["chosen"]) in first) for row in bench.rows])
    template = bench.template("rewardbench", exact)
    shown = {row["subset"] for row in bench.rows}
    there = [name for name, parts in rewardbench.SECTIONS.items() if shown & parts.keys()]
    scores = {f"subset/{name}": value for name, value in exact["scores"].items()}
    scores |= {f"section/{name}": exact["sections"][name] for name in there}
    expect = Run(0, prompts, scores)
    verdicts = said(bench, template)
    same(bench.platform(template), expect)  # its first run has things to load
    runs: list[Json] = []

    def theirs() -> float:
        found = bench.peer(python, "rewardbench", rows=bench.rows, threads=PLACES, seed=None)
        bench.since()
        if wrong := [one for one in found["judged"] if verdicts[tuple(one[:3])] != one[3]]:
            raise Different(f"{len(wrong)} verdicts of RewardBench's, one on {wrong[0]}")
        runs.append(found)
        return float(found["seconds"]) / len(bench.rows)

    turns = in_turns(
        {
            "platform": lambda: same(bench.platform(template), expect),
            "library": lambda: same(bench.library(template), expect),
            "RewardBench": theirs,
        }
    )
    peer = f"RewardBench {exact['version']}, {PLACES} threads"
    rows = [
        Row(f"a benchmark, {ours}", peer, UNIT, turns[ours], turns["RewardBench"], at_most=1)
        for ours in ("platform", "library")
    ]
    halves = sum(verdict == "error" for *_, verdict in exact["judged"])
    figures = ", ".join(f"{name} {scores[f'section/{name}']:.4f}" for name in there)
    notes = [
        f"{len(bench.rows)} rows, {OF_EACH} of each of {len(exact['scores'])} subsets. `official` "
        "and RewardBench in the same orders: every subset's and section's score is the same "
        f"({figures}; {halves} rows without a verdict count half), from the same prompts; and so "
        f"are {sum(len(run['judged']) for run in runs)} single verdicts of its timed runs. "
        "A section without rows is 0 there, and not given here.",
        f"RewardBench's start and imports, {outside(runs):.1f} s a run, are left out, as is the "
        "start of the stack.",
    ]
    return rows, notes


def against_prometheus(bench: Bench) -> Measured:
    """In the orders that ours draws."""
    python = peers.python("prometheus")
    examples = bench.examples()
    orders = [drawn_order(SEED, example) for example in examples]
    task: Json = {
        "rows": [
            {
                "prompt": example.instruction,
                "first": example.responses[order[0]],
                "second": example.responses[order[1]],
            }
            for example, order in zip(examples, orders, strict=True)
        ],
        "threads": PLACES,
        "params": {"max_tokens": MAX_TOKENS, "temperature": 0.0, "top_p": 1.0},
    }
    runs: dict[str, list[Json]] = defaultdict(list)

    def theirs(way: str) -> Run:
        found = bench.peer(python, "prometheus", way=way, **task)
        runs[way].append(found)
        points = defaultdict(list)
        for example, order, grade in zip(examples, orders, found["grades"], strict=True):
            right = "A" if order == AB else "B"
            points[f"subset/{example.subset}"].append(0.5 if grade is None else grade == right)
        scores = {subset: statistics.mean(map(float, of)) for subset, of in points.items()}
        return Run(found["seconds"] / len(examples), bench.since(), scores)

    expect = theirs("threads")
    template = bench.template("prometheus", runs["threads"].pop())
    same(bench.platform(template), expect)  # the first run with a template

    def peer(way: str) -> Callable[[], float]:
        return lambda: same(theirs(way), expect)

    turns = in_turns(
        {"platform": lambda: same(bench.platform(template), expect)}
        | {way: peer(way) for way in WAYS}
    )
    version = runs["threads"][0]["version"]
    rows = [
        Row(
            "its relative grading, platform",
            f"prometheus-eval {version}, {told}",
            UNIT,
            turns["platform"],
            turns[way],
            at_most=1,
        )
        for way, told in WAYS.items()
    ]
    accuracy = statistics.mean(expect.scores.values())  # of subsets of one size
    notes = [
        "prometheus-eval's prompt, with its rubric of helpfulness, uploaded as a template of ours: "
        f"the same prompts, and the same score in every subset (accuracy {accuracy:.4f}). It has "
        "no orders, accuracy or sections of its own; AsyncLiteLLM does not send temperature and "
        f"length limit. Its start and imports, {outside(runs['threads']):.1f} s, are left out.",
    ]
    return rows, notes


def same(run: Run, expect: Run) -> float:
    """The run's seconds; raises Different unless prompts and scores are those expected."""
    if run.asked != expect.asked:
        raise Different("the prompts")
    for name, value in expect.scores.items():
        if not math.isclose(run.scores[name], value, abs_tol=1e-12):
            raise Different(f"{name}: {run.scores[name]} and not {value}")
    return run.seconds


def named(row: Json, first: bool) -> str:
    """An id from which it follows that `chosen` is shown first, or second."""
    ids = (f"{row['id']}.{number}" for number in count())
    wanted = AB if first else BA
    return next(one for one in ids if drawn_order(SEED, Example(one, "", (), None)) == wanted)


def said(bench: Bench, template: JudgeTemplate) -> dict[tuple[str, ...], str]:
    """(prompt, first, second) -> what ours reads by the official rule, in both orders."""
    examples = bench.examples()
    answers: dict[tuple[str, Shown], list[Answer]] = {}
    for row in bench.ask(examples, template, settings(template, ["strict"])):
        answers[row["example"], tuple(row["shown"])] = [Answer(row["text"])]
    bench.since(times=2)
    judgments = Judgments(template, answers)
    verdicts = {
        (one.instruction, one.responses[order[0]], one.responses[order[1]]): judgments.official(
            one, order
        )
        for one in examples
        for order in (AB, BA)
    }
    return {texts: "error" if v == "unparsable" else str(v) for texts, v in verdicts.items()}


def outside(runs: list[Json]) -> float:
    """Seconds of a peer's process that are not measured: start, imports, end."""
    return float(statistics.median(run["whole"] - run["seconds"] for run in runs))


def settings(template: JudgeTemplate, scoring: list[Scoring]) -> EvaluationSettings:
    """An evaluation's settings, as the gateway makes them."""
    return EvaluationSettings(
        version="",
        ref="judge:0",
        benchmark=rewardbench.NAME,
        labelled=False,
        dataset_sha256="",
        scoring=scoring,
        template=template.name,
        template_sha256=template.sha256,
        votes=1,
        seed=SEED,
        limit=None,
        max_tokens=MAX_TOKENS,
    )


def benchmark_rows() -> list[Json]:
    """So many rows of each subset, in RewardBench's format."""
    taken: dict[str, list[Json]] = defaultdict(list)
    for name in FILES:
        for row in jsonl.read(DATA / f"{name}.jsonl"):
            if len(of := taken[row["subset"]]) < OF_EACH:
                texts = {key: row[key] for key in ("id", "prompt", "chosen", "rejected", "subset")}
                of.append({**texts, "chosen_model": "unknown", "rejected_model": "unknown"})
    return [row for of in taken.values() for row in of]


@contextmanager
def opened(home: Path) -> Iterator[Bench]:
    """The stand-in, and a stack that has it as the version `judge:0`."""
    port = free_port(lambda port: False)
    places = [str(port), str(SECONDS), str(PLACES)]
    url = f"http://127.0.0.1:{port}/v1"
    env = {"SELFTAUGHT_ENDPOINTS": json.dumps({"standin": url})}
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.standin", *places], cwd=ROOT)
    try:
        with (
            Stack(home / "stack", only=ONLY | {"evaluator-worker"}, env=env) as stack,
            Client(stack.gateway_url) as client,
        ):
            register(client, Judged(MODEL), "standin", "judge")
            bench = Bench(home, url, client, benchmark_rows())
            bench.renamed([row["id"] for row in bench.rows])
            yield bench
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
