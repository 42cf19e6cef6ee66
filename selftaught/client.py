"""A thin Python client of the gateway: one method per call, answers as plain dicts."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import httpx

from selftaught.sse import Reader

Json = dict[str, Any]
ENDED = {"succeeded", "failed", "cancelled"}
PAUSE = 0.25
"""Seconds before a call is sent again for the first time; then twice as many, and so on."""
LONGEST_PAUSE = 60.0
"""Who is told to wait for longer is given the refusal instead."""
BATCH_ENDED = {"completed", "failed", "cancelled"}


class ApiError(Exception):
    """The gateway refused; `problem` is its RFC 9457 body."""

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status, self.problem = status, problem


class Client:
    """Calls to one gateway, e.g. ``Client("http://127.0.0.1:8080")``.

    `key`: the API key to send; default: that of the environment's SELFTAUGHT_API_KEY, if any.
    `retries`: how often a call is sent again that got no answer, or one that says to try later.
    Every POST has an Idempotency-Key, so that what it makes is made once all the same.
    """

    def __init__(
        self, base_url: str, timeout: float = 300.0, key: str | None = None, retries: int = 3
    ) -> None:
        self._retries = retries
        key = key or os.environ.get("SELFTAUGHT_API_KEY")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=base_url, timeout=timeout, headers=headers)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Json:
        """Any request; raises ApiError on a 4xx or 5xx answer, httpx.TransportError without one."""
        response = self._send(method, path, self._retries, **options)
        return _answer(response)

    def _send(
        self,
        method: str,
        path: str,
        retries: int,
        file: BinaryIO | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """The answer, after as many tries as it takes; `file` is read anew for each."""
        once = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        for tried in itertools.count():
            if file is not None:
                file.seek(0)
            pause = PAUSE * 2**tried
            try:
                response = self._http.request(
                    method, path, headers={**once, **(headers or {})}, **options
                )
            except httpx.TransportError as error:
                # What was deleted by a call whose answer is lost would not be found again.
                safe = method != "DELETE" or isinstance(error, httpx.ConnectError)
                slow = isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)
                if tried >= retries or slow or not safe:
                    raise
            else:
                wanted = _later(response)
                if tried >= retries or wanted is None or wanted > LONGEST_PAUSE:
                    return response
                pause = max(pause, wanted)
            time.sleep(pause * random.uniform(1.0, 1.25))
        raise AssertionError("unreachable")

    def usage(self) -> Json:
        """What the key's project has used, and how much it may use."""
        return self.call("GET", "/v1/usage")

    def audit(self, **options: Any) -> Json:
        """A page of the audit log; `options`: after, limit, key, route, since, ..."""
        return self.call("GET", "/v1/audit", params=options)

    def limit_project(self, project: str, **limits: int | None) -> Json:
        """Set limits (fields of `Limits`) of a project; None ends one, others stay."""
        return self.call("PATCH", f"/v1/projects/{project}", json={"limits": limits})

    def create_key(self, name: str, scopes: list[str], **options: Any) -> Json:
        """POST /v1/keys with the fields of `KeyIn`; the answer alone has its secret."""
        return self.call("POST", "/v1/keys", json={"name": name, "scopes": scopes, **options})

    def rotate_key(self, key_id: str, grace_seconds: int = 3600) -> Json:
        """A new secret; the present one is good for `grace_seconds` more."""
        body = {"grace_seconds": grace_seconds}
        return self.call("POST", f"/v1/keys/{key_id}/rotate", json=body)

    def revoke_key(self, key_id: str) -> Json:
        return self.call("DELETE", f"/v1/keys/{key_id}")

    def upload(
        self, path: Path, kind: str = "instructions", name: str | None = None, **fields: str
    ) -> Json:
        """Upload a file, streamed from disk; `fields`: column, benchmark."""
        with path.open("rb") as file:
            return self.call(
                "POST",
                "/v1/datasets",
                file=file,
                files={"file": (path.name, file)},
                data={"kind": kind, "name": name or path.stem, **fields},
            )

    def create_job(self, **job: Any) -> Json:
        """POST /v1/jobs with the fields of `JobIn`."""
        return self.call("POST", "/v1/jobs", json=job)

    def job(self, job_id: str) -> Json:
        return self.call("GET", f"/v1/jobs/{job_id}")

    def delete_dataset(self, dataset_id: str) -> None:
        """Its data; jobs that name it keep its hash."""
        self.call("DELETE", f"/v1/datasets/{dataset_id}")

    def delete_job(self, job_id: str) -> None:
        """An ended job with all it made, but its versions."""
        self.call("DELETE", f"/v1/jobs/{job_id}")

    def delete_version(self, model: str, number: int) -> None:
        """Its weights and everything about it, unless something needs it."""
        self.call("DELETE", f"/v1/models/{model}/versions/{number}")

    def cancel_job(self, job_id: str) -> Json:
        """Versions that it has published stay."""
        return self.call("POST", f"/v1/jobs/{job_id}/cancel")

    def pause_job(self, job_id: str) -> Json:
        """Workers let go of it within seconds; what is finished stays."""
        return self.call("POST", f"/v1/jobs/{job_id}/pause")

    def resume_job(self, job_id: str) -> Json:
        """A paused job goes on where it stands."""
        return self.call("POST", f"/v1/jobs/{job_id}/resume")

    def retry_job(self, job_id: str) -> Json:
        """A failed job goes on from the stage that failed."""
        return self.call("POST", f"/v1/jobs/{job_id}/retry")

    def iterations(self, job_id: str) -> list[Json]:
        """All iterations of a job, in order."""
        data: list[Json] = self.call("GET", f"/v1/jobs/{job_id}/iterations")["data"]
        return sorted(data, key=lambda entry: entry["number"])

    def events(self, job_id: str, after: int = 0) -> Iterator[Json]:
        """Events numbered above `after`, up to now."""
        while True:
            page = self.call(
                "GET", f"/v1/jobs/{job_id}/events", params={"after": after, "limit": 100}
            )
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["data"][-1]["seq"]

    def wait(self, job_id: str, seconds: float = 86400.0) -> Json:
        """The job once it has ended; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.job(job_id)
            if job["state"] in ENDED:
                return job
            time.sleep(0.5)
        raise TimeoutError(f"{job_id} has not ended after {seconds:.0f} s")

    def download(
        self, job_id: str, iteration: int, name: str, path: Path, form: str = "jsonl"
    ) -> Path:
        """Rows of a stage (`curate`, `preferences`, `select_dropped`, ..), written to `path`."""
        url = f"/v1/jobs/{job_id}/data/{iteration}/{name}"
        with self._http.stream("GET", url, params={"format": form}) as response:
            if response.is_error:
                response.read()
                raise ApiError(response.status_code, response.json())
            with path.open("wb") as file:
                for piece in response.iter_bytes():
                    file.write(piece)
        return path

    def register_model(self, **registration: Any) -> Json:
        """POST /v1/models with the fields of `RegistrationIn`: a job."""
        return self.call("POST", "/v1/models", json=registration)

    def promote(self, model: str, number: int, **options: Any) -> Json:
        """POST .../promote with the fields of `PromoteIn`; ApiError 409 says which rules failed."""
        return self.call("POST", f"/v1/models/{model}/versions/{number}/promote", json=options)

    def promotions(self, model: str, number: int) -> list[Json]:
        """The newest 100 decisions of the gate about a version."""
        path = f"/v1/models/{model}/versions/{number}/promotions"
        data: list[Json] = self.call("GET", path, params={"limit": 100})["data"]
        return data

    def create_webhook(self, url: str, **options: Any) -> Json:
        """POST /v1/webhooks with the fields of `WebhookIn`; the answer alone has its secret."""
        return self.call("POST", "/v1/webhooks", json={"url": url, **options})

    def webhooks(self) -> list[Json]:
        """All of the project."""
        data: list[Json] = self.call("GET", "/v1/webhooks", params={"limit": 100})["data"]
        return data

    def change_webhook(self, webhook_id: str, **changes: Any) -> Json:
        """PATCH with the fields of `WebhookChange`."""
        return self.call("PATCH", f"/v1/webhooks/{webhook_id}", json=changes)

    def delete_webhook(self, webhook_id: str) -> Json:
        return self.call("DELETE", f"/v1/webhooks/{webhook_id}")

    def rotate_webhook_secret(self, webhook_id: str) -> Json:
        """The answer has the new secret; the one before signs, too, for 24 hours."""
        return self.call("POST", f"/v1/webhooks/{webhook_id}/rotate-secret")

    def test_webhook(self, webhook_id: str) -> Json:
        """Have a `webhook.test` event sent: a delivery."""
        return self.call("POST", f"/v1/webhooks/{webhook_id}/test")

    def webhook_deliveries(self, webhook_id: str, **query: Any) -> list[Json]:
        """Newest first; `query`: after, limit, state."""
        path = f"/v1/webhooks/{webhook_id}/deliveries"
        data: list[Json] = self.call("GET", path, params=query)["data"]
        return data

    def redeliver(self, webhook_id: str, delivery_id: str) -> Json:
        """Send a delivery again, now."""
        path = f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"
        return self.call("POST", path)

    def create_evaluation(self, **evaluation: Any) -> Json:
        """POST /v1/evaluations with the fields of `EvaluationIn`."""
        return self.call("POST", "/v1/evaluations", json=evaluation)

    def evaluation(self, evaluation_id: str) -> Json:
        return self.call("GET", f"/v1/evaluations/{evaluation_id}")

    def compare(self, first: str, second: str) -> Json:
        """Paired tests between two evaluations on the same examples."""
        return self.call("GET", f"/v1/evaluations/{first}/compare/{second}")

    def fill_reviews(self, model: str, number: int, **queue: Any) -> Json:
        """Sample pairs for people to review, with the fields of `ReviewQueueIn`: a job."""
        return self.call("POST", f"/v1/models/{model}/versions/{number}/reviews", json=queue)

    def next_review(self, version: str, reviewer: str) -> Json:
        """The next item for this reviewer, and how many are left."""
        params = {"version": version, "reviewer": reviewer}
        return self.call("GET", "/v1/reviews/next", params=params)

    def answer_review(
        self, item: str, reviewer: str, verdict: str, comment: str | None = None
    ) -> Json:
        """A, B or tie, in the letters as shown; the answer tells what the model said."""
        body = {"reviewer": reviewer, "verdict": verdict, "comment": comment}
        return self.call("POST", f"/v1/reviews/{item}/answers", json=body)

    def skip_review(self, item: str, reviewer: str) -> Json:
        return self.call("POST", f"/v1/reviews/{item}/skip", json={"reviewer": reviewer})

    def reviewed(self, model: str, number: int, after: str | None = None) -> Json:
        """A page of a version's items with all their answers and comments."""
        params = {} if after is None else {"after": after}
        return self.call("GET", f"/v1/models/{model}/versions/{number}/reviews", params=params)

    def review_summary(self, model: str, number: int) -> Json:
        """How well a version agrees with people."""
        return self.call("GET", f"/v1/models/{model}/versions/{number}/reviews/summary")

    def review_drift(self, model: str) -> Json:
        """Whether a model's agreement with people has fallen."""
        return self.call("GET", f"/v1/models/{model}/reviews/drift")

    def judge(self, instruction: str, response_a: str, response_b: str, **options: Any) -> Json:
        """POST /judge."""
        body = {"instruction": instruction, "response_a": response_a, "response_b": response_b}
        return self.call("POST", "/judge", json={**body, **options})

    def start_canary(self, model: str, alias: str, version: int, **options: Any) -> Json:
        """Try a version on a share of the alias's calls. `options`: the fields of `CanaryIn`."""
        path = f"/v1/models/{model}/aliases/{alias}/canary"
        return self.call("PUT", path, json={"version": version, **options})

    def end_canary(self, model: str, alias: str) -> Json:
        """The canary; its report stays."""
        return self.call("DELETE", f"/v1/models/{model}/aliases/{alias}/canary")

    def canary_report(self, canary_id: str) -> Json:
        """How a canary, living or ended, compares with the version that its alias named."""
        return self.call("GET", f"/v1/canaries/{canary_id}/report")

    def verdict(self, verdict_id: str) -> Json:
        """A logged answer, with the version that gave it."""
        return self.call("GET", f"/v1/verdicts/{verdict_id}")

    def judge_stream(
        self, instruction: str, response_a: str, response_b: str, **options: Any
    ) -> Iterator[tuple[str, Json]]:
        """POST /judge with `stream`: (event, data) as they come, the last one the `verdict`.

        Raises ApiError, also for an event `error`. Who stops reading ends the judge's work.
        """
        body = {"instruction": instruction, "response_a": response_a, "response_b": response_b}
        reader = Reader()
        with self._http.stream(
            "POST", "/judge", json={**body, **options, "stream": True}
        ) as response:
            if response.is_error:
                response.read()
                raise ApiError(response.status_code, response.json())
            for line in response.iter_lines():
                if (found := reader.line(line)) is None:
                    continue
                name, data = found[0], json.loads(found[1])
                if name == "error":
                    raise ApiError(data["status"], data)
                yield name, data

    def judge_batch(self, pairs: Path | Iterable[Json], **options: Any) -> Json:
        """POST /v1/judge/batches, streamed: a file of JSONL, or rows with the fields of a line.

        `options`: the fields of `BatchOptions`.
        """
        if isinstance(pairs, Path):
            with pairs.open("rb") as file:
                return self._send_batch(file, options, self._retries, file)
        lines = (json.dumps(pair).encode() + b"\n" for pair in pairs)
        return self._send_batch(lines, options, 0)  # rows come once only

    def _send_batch(
        self, content: Iterable[bytes], options: Json, retries: int, file: BinaryIO | None = None
    ) -> Json:
        response = self._send(
            "POST",
            "/v1/judge/batches",
            retries,
            file,
            {"content-type": "application/x-ndjson"},
            params={name: value for name, value in options.items() if value is not None},
            content=content,
        )
        return _answer(response)

    def batch(self, batch_id: str) -> Json:
        return self.call("GET", f"/v1/judge/batches/{batch_id}")

    def cancel_batch(self, batch_id: str) -> Json:
        """Its finished results stay."""
        return self.call("POST", f"/v1/judge/batches/{batch_id}/cancel")

    def wait_batch(self, batch_id: str, seconds: float = 86400.0) -> Json:
        """The batch once it has ended; raises TimeoutError."""
        self.wait(batch_id, seconds)
        return self.batch(batch_id)

    def batch_results(self, batch_id: str, after: int = 0) -> Iterator[Json]:
        """Results of lines behind line `after`, in order: those there are by now.

        To go on later, give the last result's `line`.
        """
        url = f"/v1/judge/batches/{batch_id}/results"
        with self._http.stream("GET", url, params={"after": after}) as response:
            if response.is_error:
                response.read()
                raise ApiError(response.status_code, response.json())
            for line in _lines(response.iter_bytes()):
                yield json.loads(line)

    def follow_batch(self, batch_id: str, pause: float = 0.5) -> Iterator[Json]:
        """All results, in order, as they come; ends with the batch."""
        last = 0
        while True:
            ended = self.batch(batch_id)["state"] in BATCH_ENDED  # before its last results are read
            for result in self.batch_results(batch_id, last):
                last = result["line"]
                yield result
            if ended:
                return
            time.sleep(pause)


def _answer(response: httpx.Response) -> Json:
    try:
        body: Json = response.json() if response.content else {}
    except ValueError:
        if not response.is_error:
            raise
        body = {"code": "http_error", "detail": response.reason_phrase}  # not from the gateway
    if response.is_error:
        raise ApiError(response.status_code, body)
    return body


def _later(response: httpx.Response) -> float | None:
    """Seconds after which a call may be sent again; None: it would be answered in the same way."""
    if response.status_code in (502, 503, 504):
        wanted = response.headers.get("retry-after", "0")
    elif response.status_code in (409, 429) and "retry-after" in response.headers:
        wanted = response.headers["retry-after"]
    else:
        return None
    return float(wanted) if wanted.isdigit() else 0.0


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines that end with a newline byte, and with nothing else."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
