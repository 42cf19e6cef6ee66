"""The work under test, over HTTP as a user's program does it: rounds of jobs, `/judge`, uploads.

A round is always the same work with the same seeds, under model names of its own, so that each
round of a disturbed stack can be held against one of an undisturbed stack. A call that fails is
made again; how it failed is counted. Nothing here looks into the database.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import httpx

from selftaught.client import ENDED, ApiError, Batch, Client, Evaluation, Job
from selftaught.contracts import DatasetKind, JudgeOut
from selftaught.stack.handle import Stack
from selftaught.stack.spec import StackError

Json = dict[str, Any]
T = TypeVar("T")
SEED = Path(str(files("seeds"))) / "smallworld"
WORLD = SEED / "data"
TINY: Json = {
    "iterations": 1,
    "chunk_size": 8,
    "pair": {"instructions": 32},
    "judge": {"samples": 3},
    "train": {"steps": 8, "tokens_per_step": 500, "warmup_steps": 1, "checkpoints": 1},
    "validate": {"instructions": 16},
}
DPO = {"seed": 1, "train": {**TINY["train"], "objective": "sft_dpo", "method": "lora"}}
BROKEN = "broken"
"""A base model of the home whose weights are not whole."""
BATCH = 1000
QUESTIONS = 12
TEMPORARY = {429, 502, 503, 504}
"""Statuses that tell a client to ask again."""


class Refused(Exception):
    """The gateway refused for good: the workload or the product is wrong."""


@dataclass
class Calls:
    """How the calls went. `untyped`: answers that no client could act on; there must be none."""

    made: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, failure: str | None = None, untyped: str | None = None) -> None:
        with self.lock:
            self.made[what] += 1
            if failure is not None:
                self.failed[failure] += 1
            if untyped is not None:
                self.untyped.append(f"{what}: {untyped}")


@dataclass
class Workload:
    """`known`: what the gateway said is there, by `<round>/<item>`; `answers`: wrong ones of
    `/judge`; `uploaded`: dataset id -> rows."""

    stack: Stack
    folder: Path
    calls: Calls = field(default_factory=Calls)
    known: dict[str, str] = field(default_factory=dict)
    uploaded: dict[str, int] = field(default_factory=dict)
    answers: dict[int, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    judged: int = 0
    rounds: int = 0
    expected: dict[int, str] | None = None
    _clients: threading.local = field(default_factory=threading.local)
    _over: threading.Event = field(default_factory=threading.Event)

    # ------------------------------------------------------------ calls

    def persist(self, what: str, call: Callable[[Client, int], T]) -> T:
        """`call(client, attempt)` until it is answered. Raises Refused."""
        attempt = 0
        while True:
            attempt += 1
            try:
                result = call(self._client(), attempt)
            except ApiError as error:
                code = error.problem.get("code")
                if error.status < 400:  # it is answered in the same way each time
                    raise Refused(f"{what}: {error}") from error
                if code in (None, "unexpected_answer") or error.status == 500:
                    told = f"{error.status} {json.dumps(error.problem)[:300]}"
                    self.calls.count(what, f"{error.status} {code}", told)
                elif error.status in TEMPORARY:
                    self.calls.count(what, f"{error.status} {code}")
                else:
                    raise Refused(f"{what}: {error}") from error
            except httpx.TransportError as error:
                self.calls.count(what, f"no answer ({type(error).__name__})")
            except StackError:
                self.calls.count(what, "no answer (the stack is down)")
            else:
                self.calls.count(what)
                return result
            time.sleep(min(0.2 * 2**attempt, 2.0))

    def _client(self) -> Client:
        """This thread's client of the gateway as it is now: a new stack has a new port."""
        url = self.stack.gateway_url
        if getattr(self._clients, "url", None) != url:
            self._clients.url, self._clients.client = url, Client(url, timeout=30.0, retries=0)
        found: Client = self._clients.client
        return found

    def create(self, name: str, call: Callable[[Client, int], Job | Batch | Evaluation]) -> str:
        """Id of what a POST made; `name`: `<round>/<item>`."""
        made = self.persist("create " + name.partition("/")[2], call)
        self.known[name] = made.id
        return made.id

    def wait(self, job_id: str) -> Job:
        """The job once it has ended."""
        while True:
            job = self.persist("watch", lambda client, _: client.jobs.get(job_id))
            if job.ended:
                return job
            time.sleep(1.0)

    def upload(self, name: str, source: str, rows: int, kind: DatasetKind = "instructions") -> str:
        """Id of a dataset of the first rows of a file of the small world."""
        path = self.folder / f"{name.replace('/', '-')}.jsonl"
        with (WORLD / source).open() as lines:
            path.write_text("".join(islice(lines, rows)))
        made = self.persist(
            "upload", lambda client, _: client.datasets.upload(path, kind, name=name)
        )
        self.known[name] = made.id
        self.uploaded[made.id] = rows
        return made.id

    # ------------------------------------------------------------ a round

    def round(self, number: int) -> None:
        """Every kind of job once, side by side; returns when all have ended."""
        at = f"r{number}"
        instructions = self.upload(f"{at}/instructions", "instructions.jsonl", 100)
        labelled = self.upload(f"{at}/labelled", "dev.jsonl", 12, kind="labelled")
        with ThreadPoolExecutor(8) as pool:
            given = (at, instructions, labelled)
            tasks = [pool.submit(self._on_base, at, labelled)]
            tasks += [pool.submit(self._loop, *given, "sft", {})]
            tasks += [pool.submit(self._loop, *given, "dpo", DPO)]
            tasks += [pool.submit(self._cancelled, *given)]
            tasks += [pool.submit(self._failing, *given)]
            for task in tasks:
                task.result()
        self.rounds += 1

    def _loop(self, at: str, instructions: str, labelled: str, name: str, overrides: Json) -> None:
        """A loop job, then an evaluation and a batch by what it made."""
        job = self.create(f"{at}/{name}", self._job(at, instructions, labelled, name, overrides))
        if name == "dpo":
            self._paused(job)
        ended = self.wait(job)
        if ended.state != "succeeded":
            return
        held = self.upload(f"{at}/{name}-test", "test.jsonl", 80, kind="labelled")
        version = f"{ended.model}:1"
        self.wait(
            self.create(
                f"{at}/{name}-eval",
                lambda client, _: client.evaluations.create(held, version, scoring=["strict"]),
            )
        )

    def _job(
        self, at: str, instructions: str, labelled: str, name: str, overrides: Json
    ) -> Callable[[Client, int], Job]:
        def post(client: Client, attempt: int) -> Job:
            # A reply that was lost may have been a 201: another name keeps the two apart.
            again = "" if attempt == 1 else f".again{attempt}"
            return client.jobs.create(
                instructions,
                labelled_dataset=labelled,
                overrides={**TINY, **overrides},
                model=f"{at}-{name}{again}",
            )

        return post

    def _on_base(self, at: str, labelled: str) -> None:
        """A base model's registration; then a batch of a thousand pairs and a review queue."""
        name = f"{at}-base"
        registered = self.create(f"{at}/base", partial(_register, "smallworld", name))
        if self.wait(registered).state != "succeeded":
            return
        pairs = self.folder / "pairs.jsonl"
        batch = self.create(
            f"{at}/batch", lambda client, _: client.batches.create(pairs, model=f"{name}:0")
        )
        queue = self.create(
            f"{at}/review", lambda client, _: client.reviews.fill(name, 0, size=10, source=labelled)
        )
        for job in (batch, queue):
            self.wait(job)

    def _cancelled(self, at: str, instructions: str, labelled: str) -> None:
        """A loop job that is cancelled in the middle of its work."""
        post = self._job(at, instructions, labelled, "cancelled", {"iterations": 5})
        job = self.create(f"{at}/cancelled", post)
        while True:
            found = self.persist("watch", lambda client, _: client.jobs.get(job))
            if found.iterations_done or found.ended:
                break
            time.sleep(0.5)
        self._control(job, "cancel")
        self.wait(job)

    def _failing(self, at: str, instructions: str, labelled: str) -> None:
        """Jobs that fail for a reason: a selection that leaves nothing, a model whose weights are
        cut off, and the latter again when it is retried."""
        post = self._job(at, instructions, labelled, "empty", {"select": {"min_chars": 399}})
        empty = self.create(f"{at}/empty", post)
        broken = self.create(f"{at}/broken", partial(_register, BROKEN, f"{at}-broken"))
        self.wait(broken)
        self._control(broken, "retry")
        for job in (broken, empty):
            self.wait(job)

    def _paused(self, job: str) -> None:
        """A job that is made to stand still twice in the middle of its work."""
        for _ in range(2):
            time.sleep(5.0)
            self._control(job, "pause")
            while self._state(job) not in {"paused", *ENDED}:
                time.sleep(0.5)
            time.sleep(1.0)
            self._control(job, "resume")

    def _control(self, job: str, what: str) -> None:
        """cancel, pause, resume or retry; a job that is beyond that says so."""

        def ask(client: Client, _: int) -> None:
            try:
                client.call("POST", f"/v1/jobs/{job}/{what}")
            except ApiError as error:
                if error.status != 409:
                    raise

        self.persist(what, ask)

    def _state(self, job: str) -> str:
        return str(self.persist("watch", lambda client, _: client.jobs.get(job)).state)

    # ------------------------------------------------------------ all the time

    def prepare(self) -> None:
        """What the calls of all rounds need: a model to ask, a broken one, and a file of pairs."""
        broken = self.folder / "models" / BROKEN
        shutil.copytree(SEED, broken, ignore=shutil.ignore_patterns("data"))
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        rows = [json.loads(line) for line in (WORLD / "dev.jsonl").read_text().splitlines()]
        with (self.folder / "pairs.jsonl").open("w") as file:
            for number, row in enumerate(islice(cycle(rows), BATCH), 1):
                file.write(json.dumps({"custom_id": f"pair-{number}", **question(row)}) + "\n")
        job = self.create("all/judge", partial(_register, "smallworld", "judge"))
        self.wait(job)
        self._questions = [question(row) for row in rows[:QUESTIONS]]

    def background(self) -> list[threading.Thread]:
        """Threads that judge and upload until :meth:`finish`."""
        threads = [
            threading.Thread(target=one, daemon=True) for one in (self._judge, self._uploads)
        ]
        for thread in threads:
            thread.start()
        return threads

    def finish(self) -> None:
        """Let the background end."""
        self._over.set()

    def _judge(self) -> None:
        """The same questions again and again; an answer never changes."""
        for number, asked in enumerate(cycle(self._questions)):
            if self._over.wait(0.3):
                return
            at = number % QUESTIONS
            answer = self.persist("judge", partial(_ask, asked))
            told = f"{answer.verdict} {answer.model}"
            self.judged += 1
            wanted = (self.expected or self.answers).setdefault(at, told)
            if told != wanted:
                self.wrong.append(f"question {at}: {told}, was {wanted}")

    def _uploads(self) -> None:
        number = 0
        while not self._over.wait(1.0):
            number += 1
            self.upload(f"all/upload-{number % 5}", "instructions.jsonl", 20 + number % 50)


def _ask(asked: Json, client: Client, _attempt: int) -> JudgeOut:
    return client.judge(**asked, model="judge:0")


def _register(base_model: str, name: str, client: Client, _attempt: int) -> Job:
    return client.models.register(base_model, name=name, template="smallworld", max_tokens=64)


def question(row: Json) -> Json:
    """A labelled row as a pair to judge; every second one is turned round by its text."""
    pair = [row["chosen"], row["rejected"]]
    first, second = sorted(pair)
    return {"instruction": row["instruction"], "response_a": first, "response_b": second}
