"""The Python client of a gateway (docs/client.md): `Client`, `AsyncClient` and what they answer.

Only HTTP: it needs nothing of the services. `_async` is written by hand, `_sync` made of it.
"""

from selftaught.client._async.batches import AsyncBatch
from selftaught.client._async.client import AsyncClient
from selftaught.client._async.evaluations import AsyncEvaluation
from selftaught.client._async.jobs import AsyncJob
from selftaught.client._sync.batches import Batch
from selftaught.client._sync.client import Client
from selftaught.client._sync.evaluations import Evaluation
from selftaught.client._sync.jobs import Job
from selftaught.client._sync.judging import JudgeEvent
from selftaught.client.answers import Json
from selftaught.client.errors import ApiError, JobFailed
from selftaught.client.waiting import ENDED

__all__ = [
    "ENDED",
    "ApiError",
    "AsyncBatch",
    "AsyncClient",
    "AsyncEvaluation",
    "AsyncJob",
    "Batch",
    "Client",
    "Evaluation",
    "Job",
    "JobFailed",
    "Json",
    "JudgeEvent",
]
