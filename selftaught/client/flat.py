"""The client's methods from before it had resources; leaves when its last caller has."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from selftaught.client._sync.batches import Batches
from selftaught.client._sync.datasets import Datasets
from selftaught.client._sync.jobs import Jobs
from selftaught.client.answers import Json

ENDED = {"succeeded", "failed", "cancelled"}
BATCH_ENDED = {"completed", "failed", "cancelled"}


class Flat:
    """Answers are plain dicts."""

    datasets: Datasets
    batches: Batches
    jobs: Jobs

    def call(self, method: str, path: str, **options: Any) -> Json:
        """Of the client."""
        raise NotImplementedError

    def upload(
        self, path: Path, kind: str = "instructions", name: str | None = None, **fields: Any
    ) -> Json:
        """Upload a file, streamed from disk; `fields`: column, benchmark."""
        made = self.datasets.upload(path, kind, name=name or path.stem, **fields)  # type: ignore[arg-type]
        return made.model_dump(mode="json")

    def download(
        self, job_id: str, iteration: int, name: str, path: Path, form: str = "jsonl"
    ) -> Path:
        """Rows of a stage (`curate`, `preferences`, `select_dropped`, ..), written to `path`."""
        return self.jobs.get(job_id).download(iteration, name, path, form)  # type: ignore

    def judge_batch(self, pairs: Path | Iterable[Json], **options: Any) -> Json:
        """A file of JSONL, or rows with the fields of a line. `options`: of `BatchOptions`."""
        return self.batches.create(pairs, **options).model_dump(mode="json")

    def batch_results(self, batch_id: str, after: int = 0) -> Iterator[Json]:
        """Results of lines behind line `after`, in order: those there are by now."""
        for result in self.batches.get(batch_id).results(after, follow=False):
            yield result.model_dump(mode="json")

    def follow_batch(self, batch_id: str) -> Iterator[Json]:
        """All results, in order, as they come; ends with the batch."""
        for result in self.batches.get(batch_id).results():
            yield result.model_dump(mode="json")

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

    def batch(self, batch_id: str) -> Json:
        return self.call("GET", f"/v1/judge/batches/{batch_id}")

    def cancel_batch(self, batch_id: str) -> Json:
        """Its finished results stay."""
        return self.call("POST", f"/v1/judge/batches/{batch_id}/cancel")

    def wait_batch(self, batch_id: str, seconds: float = 86400.0) -> Json:
        """The batch once it has ended; raises TimeoutError."""
        self.wait(batch_id, seconds)
        return self.batch(batch_id)
