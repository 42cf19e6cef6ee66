"""The peer of benchmarks/gateway.py: routes of FastAPI alone, with nothing around them.

    uvicorn benchmarks.bare_api:app      with BARE_JOB, BARE_ANSWER (JSON) and BARE_ENGINE (a URL)

Same bodies, same contracts, same uvicorn. No keys, no projects, no database, no limits, no request
ids, no metrics.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from fastapi import FastAPI

from selftaught.contracts import JobOut, JudgeIn, JudgeOut
from selftaught.judging import ORDERS, TOP, combine, load_judge_template, parse_verdict, swap

JOB = JobOut.model_validate_json(os.environ["BARE_JOB"])
ANSWER = JudgeOut.model_validate_json(os.environ["BARE_ANSWER"])
ENGINE = os.environ["BARE_ENGINE"]
TEMPLATE = load_judge_template(ANSWER.template)
KNOWN: dict[str, aiohttp.ClientSession] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    async with aiohttp.ClientSession(connector=connector) as session:
        KNOWN["engine"] = session
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/v1/jobs/{job_id}")
async def read_job(job_id: str) -> JobOut:
    """A job that is there already."""
    return JOB


@app.post("/judge")
async def judge(body: JudgeIn) -> JudgeOut:
    """Ask the engine for both orders, and read what it says."""
    replies = await asyncio.gather(*(ask(body, order) for order in ORDERS))
    ab, ba = (parse_verdict(reply, TEMPLATE) for reply in replies)
    return ANSWER.model_copy(update={"verdict": combine(ab, swap(ba)).verdict})


@app.post("/silent/judge")
async def judge_without_engine(body: JudgeIn) -> JudgeOut:
    return ANSWER


async def ask(body: JudgeIn, order: Any) -> str:
    pair = {"instruction": body.instruction, "chosen": body.response_a, "rejected": body.response_b}
    sent = {
        "model": ANSWER.model,
        "messages": TEMPLATE.show(pair, order),
        "temperature": 0,
        "max_tokens": 64,
        "logprobs": True,
        "top_logprobs": TOP,
    }
    data = orjson.dumps(sent)
    headers = {"content-type": "application/json"}
    async with KNOWN["engine"].post(
        f"{ENGINE}/chat/completions", data=data, headers=headers
    ) as got:
        answer = orjson.loads(await got.read())
    return str(answer["choices"][0]["message"]["content"])
