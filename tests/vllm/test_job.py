"""One whole job on a managed vLLM, on one device: generation and training take turns on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from selftaught.client import Client, Job
from selftaught.contracts import SamplingSettings
from selftaught.inference.protocol import Request
from selftaught.inference.vllm import seed_of
from selftaught.stack.handle import Stack
from tests.vllm.conftest import await_, events, rows, server_urls

pytestmark = pytest.mark.vllm
DEVICES = "cpu"


@pytest.fixture(scope="module")
def job(stack: Stack, instructions: str) -> Iterator[Job]:
    from tests.vllm.conftest import SMALL

    with Client(stack.gateway_url) as client:
        started = client.jobs.create(
            instructions,
            recipe="quickstart",
            overrides={
                **SMALL,
                "judge": {"samples": 6, "need": "right", "wave": 2},
                "curate": {"both_orders": False, "agree": False},
            },
            model="judge",
        )
        yield started.wait(900)


def test_generation_and_training_take_turns_on_one_device(stack: Stack, job: Job) -> None:
    told = [
        (event.type, event.data.get("reason"))
        for event in events(
            job, "engine.ready", "engine.stopped", "train.started", "adapter.loaded"
        )
    ]
    assert told == [
        ("engine.ready", None),
        ("engine.stopped", "a training needs its devices"),
        ("train.started", None),
        ("engine.ready", None),
        ("adapter.loaded", None),
    ]
    ((holder, purpose),) = rows(stack, "SELECT holder, purpose FROM devices")
    ((server,),) = rows(stack, "SELECT id FROM engine_servers")
    assert (holder, purpose) == (server, "engine")


def test_adaptive_sampling_decides_while_others_run(job: Job) -> None:
    counts = list(job.iterations())[1].counts
    inputs = 2 * counts["judged_pairs"]
    assert counts["judgments_sampled"] + counts["judgments_spared"] == 6 * inputs
    assert 0 < counts["judgments_spared"] < 4 * inputs  # two at least are asked of each


def test_the_prefix_cache_is_hit(job: Job) -> None:
    (stopped,) = events(job, "engine.stopped")
    done = stopped.data
    assert 0 < done["prompt_tokens_cached"] < done["prompt_tokens"]
    spent = list(job.iterations())
    sampled = sum(iteration.counts["tokens"] for iteration in spent) - sum(
        stage.counts["tokens"] for stage in spent[1].stages if stage.kind == "validate"
    )
    assert done["generation_tokens"] == sampled  # no judgment was asked for twice


def test_a_sample_does_not_depend_on_those_that_are_asked_with_it(stack: Stack, job: Job) -> None:
    (url,) = server_urls(stack)
    body = {"model": "smallworld", "prompt": list(range(2, 40)), "max_tokens": 16}

    def texts(seed: int, n: int) -> list[str]:
        sent = {**body, "seed": seed, "n": n}
        answer = httpx.post(f"{url}/v1/completions", json=sent, timeout=120).raise_for_status()
        return [choice["text"] for choice in answer.json()["choices"]]

    together = texts(seed_of(3, 5), 4)
    assert len(set(together)) > 1
    assert together == [texts(seed_of(3, sample), 1)[0] for sample in range(5, 9)]


def logprobs(url: str, model: str) -> list[float]:
    """Of a fixed prompt's tokens, as `model` on this server sees them."""
    body = {"model": model, "prompt": list(range(2, 40)), "max_tokens": 1, "prompt_logprobs": 0}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=120).raise_for_status().json()
    return [
        next(iter(place.values()))["logprob"]
        for place in answer["choices"][0]["prompt_logprobs"][1:]
    ]


def test_the_trained_version_answers_and_the_old_one_still_does(
    stack: Stack, client: Client, job: Job
) -> None:
    pair = ("Repeat this: a b c", "a b c", "c b a")
    new = client.judge(*pair, model="judge:1", votes=4, explain=True)
    old = client.judge(*pair, model="judge:0", votes=4, explain=True)
    assert (new.model, old.model) == ("judge:1", "judge:0")
    assert all(vote.reasoning for answer in (new, old) for vote in answer.orders)
    ((version,),) = rows(stack, "SELECT id FROM model_versions WHERE number = 1")
    (url,) = server_urls(stack)
    listed = {entry["id"] for entry in httpx.get(f"{url}/v1/models").json()["data"]}
    assert listed == {"smallworld", version}
    assert logprobs(url, version) != logprobs(url, "smallworld")
    assert logprobs(url, version) == pytest.approx(logprobs(url, version), abs=1e-4)


def test_the_alias_moved_with_the_gate_and_rolls_back_in_one_call(client: Client, job: Job) -> None:
    (decided,) = [event for event in events(job, "gate.decided") if event.data["iteration"] == 1]
    latest = "judge:1" if decided.data["promoted"] else "judge:0"
    assert client.judge("Repeat this: a", "a", "b", model="judge").model == latest
    for number in (0, 1):
        client.models.set_alias("judge", "production", number)
    assert client.judge("Repeat this: a", "a", "b", model="judge:production").model == "judge:1"
    client.models.rollback("judge", "production")
    assert client.judge("Repeat this: a", "a", "b", model="judge:production").model == "judge:0"


def test_what_the_adapter_says_is_what_transformers_says(
    stack: Stack, client: Client, job: Job
) -> None:
    """The same weights, judged greedily by vLLM and here, give the same verdicts nearly always."""
    from selftaught.inference.local import LocalEngine
    from selftaught.judging import load_judge_template
    from selftaught.judging.scoring import judge_outcomes

    ((version,),) = rows(stack, "SELECT path FROM model_versions WHERE number = 1")
    engine = LocalEngine(stack.home / "versions" / version)
    pairs = [
        {"id": str(n), "instruction": f"Repeat this: {a} {b}", "chosen": f"{a} {b}", "rejected": b}
        for n, (a, b) in enumerate(zip("abcdefgh", "hgfedcba", strict=True))
    ]
    here = judge_outcomes(engine, load_judge_template("smallworld"), pairs, 200)
    same = 0
    for pair, mine in zip(pairs, here, strict=True):
        theirs = client.judge(
            pair["instruction"],
            pair["chosen"],
            pair["rejected"],
            model="judge:1",
            explain=True,
        )
        texts = [order.reasoning for order in theirs.orders]
        same += texts == [mine["text_ab"], mine["text_ba"]]
    assert same >= len(pairs) - 1


def test_the_export_has_the_adapter_in_its_weights(
    stack: Stack, client: Client, job: Job, tmp_path: Path
) -> None:
    """The merged weights say what vLLM says with the adapter."""
    from selftaught.inference.local import LocalEngine
    from selftaught.judging import ORDERS, load_judge_template

    out = tmp_path / "judge"
    command = Path(sys.executable).with_name("selftaught")
    subprocess.run([command, "export", "judge:1", out, "--home", stack.home], check=True)
    assert not (out / "adapter_config.json").exists()
    told = json.loads((out / "selftaught.json").read_text())
    assert told["ref"] == "judge:1"
    assert told["lineage"]["base_model"]["license"] == "apache-2.0"
    pair = {"instruction": "Repeat this: a b", "chosen": "a b", "rejected": "b"}
    template = load_judge_template("smallworld")
    answers = LocalEngine(out).generate(
        [Request(template.show(pair, order), 0) for order in ORDERS],
        SamplingSettings(temperature=0, max_tokens=200),
    )
    theirs = client.judge(*pair.values(), model="judge:1", explain=True)
    assert [texts[0].text for texts in answers] == [one.reasoning for one in theirs.orders]


def test_nothing_of_vllm_outlives_its_stack(
    tmp_path_factory: pytest.TempPathFactory, stack: Stack
) -> None:
    import psutil

    ((pid,),) = rows(stack, "SELECT pid FROM engine_servers")
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert len(family) > 1
    stack.stop()
    await_(lambda: all(not process.is_running() for process in family), 60)
