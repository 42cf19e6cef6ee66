"""What a tenant can ask every route of the gateway about another's: nothing may come of it.

In paths, headers and bodies `<name>` stands for one of the names in tests/api/tenants.py. A route
that is new needs its own here (tests/api/test_walls.py names it): every id and every name that it
takes, wherever it takes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.api.tenants import Names

JSONL = {"content-type": "application/x-ndjson"}
PAIR = {"instruction": "i", "response_a": "good", "response_b": "bad"}
LINE = json.dumps(PAIR)


@dataclass(frozen=True)
class Ask:
    """A request. `makes`: it names nothing that must be there, so its answer is the asker's own."""

    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    makes: bool = False

    def filled(self, names: Names) -> dict[str, Any]:
        """Arguments for a client's `request`, but for the method."""
        headers = {name: fill(value, names) for name, value in self.headers.items()}
        found: dict[str, Any] = {"url": fill(self.path, names), "headers": headers}
        if isinstance(self.body, str):
            found["content"] = fill(self.body, names)
        elif self.body is not None:
            found["content"] = fill(json.dumps(self.body), names)
            headers.setdefault("content-type", "application/json")
        return found


def fill(text: str, names: Names) -> str:
    return re.sub(r"<(\w+)>", lambda found: names[found[1]], text)


def job(**change: Any) -> Ask:
    recipe = {"name": "tiny", "iterations": 1, "validate": {"instructions": 2}}
    return Ask("/v1/jobs", {"dataset": "<dataset>", "recipe": recipe, **change})


def paged(path: str, *cursors: str) -> list[Ask]:
    """A list from its beginning, and behind something of another's."""
    mark = "&" if "?" in path else "?"
    return [Ask(path), *(Ask(f"{path}{mark}after=<{cursor}>") for cursor in cursors)]


MODELS = ("/v1/models/<model>", "/v1/models/tour")
VERSIONS = ("/v1/models/<model>/versions/0", "/v1/models/tour/versions/<number>")
ALIASES = ("/v1/models/<model>/aliases/latest", "/v1/models/tour/aliases/<alias>")
REFS = ("<model>", "<model>:0", "<model>:latest", "tour:<number>", "tour:<alias>")
OWN = "/v1/models/tour/aliases/latest"

ASKS: dict[str, list[Ask]] = {
    "GET /v1/caller": [Ask("/v1/caller", makes=True)],
    "POST /v1/datasets": [
        Ask("/v1/datasets?name=<dataset>", '{"instruction": "i"}', JSONL, makes=True),
        Ask(
            "/v1/datasets?name=<dataset>",
            '{"instruction": "i"}',
            {**JSONL, "idempotency-key": "<request>"},
            makes=True,
        ),
    ],
    "GET /v1/datasets": paged("/v1/datasets", "dataset"),
    "GET /v1/datasets/{dataset_id}": [Ask("/v1/datasets/<dataset>"), Ask("/v1/datasets/<job>")],
    "GET /v1/datasets/{dataset_id}/rows": [
        Ask("/v1/datasets/<dataset>/rows"),
        Ask("/v1/datasets/<labelled>/rows?after=0"),
    ],
    "DELETE /v1/datasets/{dataset_id}": [
        Ask("/v1/datasets/<dataset>"),
        Ask("/v1/datasets/<labelled>"),
    ],
    "DELETE /v1/jobs/{job_id}": [
        Ask(f"/v1/jobs/<{one}>") for one in ("job", "running", "evaluation", "review_job", "batch")
    ],
    "DELETE /v1/models/{name}/versions/{number}": [Ask(path) for path in VERSIONS],
    "POST /v1/jobs": [
        job(),
        job(dataset="ds1_blu", labelled_dataset="<labelled>"),
        job(dataset="ds1_blu", overrides={"gate": {"labelled": ["<labelled>"]}}),
        job(dataset="ds1_blu", overrides={"judge": {"template": "<template>"}}),
        job(dataset="ds1_blu", overrides={"base_model": "<model>"}),
    ],
    "GET /v1/jobs": [
        *paged("/v1/jobs", "job", "running"),
        *paged("/v1/jobs?state=running", "running"),
        Ask("/v1/jobs?dataset=<dataset>"),
    ],
    "GET /v1/jobs/{job_id}": [Ask("/v1/jobs/<job>"), Ask("/v1/jobs/<evaluation>")],
    **{
        f"POST /v1/jobs/{{job_id}}/{what}": [
            Ask(f"/v1/jobs/<{one}>/{what}") for one in ("running", "job", "batch")
        ]
        for what in ("pause", "resume", "retry")
    },
    "POST /v1/jobs/{job_id}/cancel": [
        Ask("/v1/jobs/<running>/cancel"),
        Ask("/v1/jobs/<job>/cancel"),
    ],
    "GET /v1/jobs/{job_id}/events": [
        Ask("/v1/jobs/<job>/events"),
        Ask("/v1/jobs/<job>/events", headers={"accept": "text/event-stream"}),
        Ask("/v1/jobs/<job>/events?after=2", headers={"accept": "text/event-stream"}),
        Ask("/v1/jobs/<job>/events", headers={"accept": "text/event-stream", "last-event-id": "2"}),
    ],
    "GET /v1/jobs/{job_id}/iterations": [Ask("/v1/jobs/<job>/iterations")],
    "GET /v1/iterations/{iteration_id}": [Ask("/v1/iterations/<iteration>")],
    "GET /v1/jobs/{job_id}/iterations/{iteration}/pairs": [
        Ask("/v1/jobs/<job>/iterations/0/pairs"),
        Ask("/v1/jobs/<job>/iterations/0/pairs?after=0&begins=1&outcome=kept"),
    ],
    "GET /v1/jobs/{job_id}/iterations/{iteration}/pairs/{pair_id}": [
        Ask("/v1/jobs/<job>/iterations/0/pairs/1"),
        Ask("/v1/jobs/<job>/iterations/0/pairs/<item>"),
    ],
    "GET /v1/jobs/{job_id}/data": [Ask("/v1/jobs/<job>/data")],
    "GET /v1/jobs/{job_id}/data/{iteration}": [Ask("/v1/jobs/<job>/data/0")],
    "GET /v1/jobs/{job_id}/data/{iteration}/{name}": [
        Ask("/v1/jobs/<job>/data/0/select"),
        Ask("/v1/jobs/<job>/data/0/select?format=parquet"),
    ],
    "GET /v1/recipes": [Ask("/v1/recipes")],
    "GET /v1/base-models": [Ask("/v1/base-models")],
    "GET /v1/recipes/{name}": [Ask("/v1/recipes/<template>")],
    "POST /v1/templates": [
        Ask(
            "/v1/templates",
            {"name": "<template>", "kind": "score", "user": "{instruction} {response}"},
            makes=True,
        )
    ],
    "GET /v1/templates": paged("/v1/templates", "template"),
    "GET /v1/templates/{name}": [
        Ask("/v1/templates/<template>x"),
        Ask("/v1/templates/<score_template>"),
    ],
    "POST /v1/models": [
        Ask("/v1/models", {"base_model": "smallworld", "name": "<model>"}, makes=True),
        Ask("/v1/models", {"base_model": "<model>"}),
        Ask("/v1/models", {"base_model": "smallworld", "template": "<score_template>"}),
    ],
    "GET /v1/models": paged("/v1/models", "model"),
    "GET /v1/models/{name}/versions": [
        Ask("/v1/models/<model>/versions"),
        Ask("/v1/models/tour/versions"),
        Ask("/v1/models/tour/versions?after=<number>"),
    ],
    "GET /v1/models/{name}/versions/{number}": [Ask(path) for path in VERSIONS],
    "GET /v1/models/{name}/versions/{number}/files": [Ask(f"{path}/files") for path in VERSIONS],
    "GET /v1/models/{name}/versions/{number}/files/{file}": [
        Ask(f"{path}/files/config.json") for path in VERSIONS
    ],
    "GET /v1/models/{name}/aliases": [Ask(f"{path}/aliases") for path in MODELS],
    "GET /v1/models/{name}/aliases/{alias}": [Ask(path) for path in ALIASES],
    "PUT /v1/models/{name}/aliases/{alias}": [
        Ask(f"{path}{more}", {"version": version, "prepare": prepare}, headers)
        for path, more, version in (
            ("/v1/models/<model>/aliases/latest", "", 0),
            ("/v1/models/<model>/aliases/new", "", 0),
        )
        for prepare in (False, True)
        for headers in ({}, {"if-match": '"2"'}, {"if-none-match": "*"})
    ]
    + [
        Ask("/v1/models/tour/aliases/<alias>", '{"version": <number>, "prepare": false}'),
        Ask(OWN, '{"version": <number>, "prepare": false}'),
        Ask(OWN, '{"version": <number>}', {"if-match": '"2"'}),
        Ask("/v1/models/tour/aliases/<alias>", {"version": 0}, {"if-match": '"2"'}),
    ],
    "POST /v1/models/{name}/aliases/{alias}/rollback": [
        Ask(f"{path}/rollback", headers=headers)
        for path in ALIASES
        for headers in ({}, {"if-match": '"2"'}, {"if-match": '"1"'})
    ],
    "PUT /v1/models/{name}/aliases/{alias}/canary": [
        Ask(f"{path}/canary", {"version": 0, "share": 1, "prepare": prepare})
        for path in ALIASES
        for prepare in (False, True)
    ]
    + [Ask(f"{OWN}/canary", '{"version": <number>, "share": 1, "prepare": false}')],
    "GET /v1/models/{name}/aliases/{alias}/canary": [Ask(f"{path}/canary") for path in ALIASES],
    "DELETE /v1/models/{name}/aliases/{alias}/canary": [Ask(f"{path}/canary") for path in ALIASES],
    "GET /v1/models/{name}/aliases/{alias}/canary/report": [
        Ask(f"{path}/canary/report") for path in ALIASES
    ],
    "GET /v1/canaries": [
        *paged("/v1/canaries", "canary", "ended_canary"),
        Ask("/v1/canaries?model=<model>"),
        Ask("/v1/canaries?alias=<alias>"),
    ],
    "GET /v1/canaries/{canary_id}/report": [
        Ask("/v1/canaries/<canary>/report"),
        Ask("/v1/canaries/<ended_canary>/report"),
    ],
    "GET /v1/verdicts": [
        *paged("/v1/verdicts", "verdict"),
        Ask("/v1/verdicts?model=<model>"),
        Ask("/v1/verdicts?model=tour&version=<number>"),
        Ask("/v1/verdicts?content_sha256=<content>"),
        Ask("/v1/verdicts?request_id=<request>"),
    ],
    "GET /v1/verdicts/{verdict_id}": [Ask("/v1/verdicts/<verdict>")],
    "POST /v1/models/{name}/versions/{number}/promote": [
        Ask(f"{path}/promote", body)
        for path in VERSIONS
        for body in (
            {"prepare": False},
            {"prepare": True, "alias": "<alias>"},
            {"prepare": False, "force": True, "reason": "r"},
        )
    ],
    "GET /v1/models/{name}/versions/{number}/promotions": [
        *(Ask(f"{path}/promotions") for path in VERSIONS),
        *paged("/v1/models/tour/versions/1/promotions", "promotion"),
    ],
    "GET /v1/models/{name}/promotions": [
        *(Ask(f"{path}/promotions") for path in MODELS),
        *paged("/v1/models/tour/promotions", "promotion"),
    ],
    "POST /v1/evaluations": [
        Ask("/v1/evaluations", {"dataset": "<labelled>", "model": "tour"}),
        *(Ask("/v1/evaluations", {"dataset": "ds2_blu", "model": ref}) for ref in REFS),
        Ask("/v1/evaluations", {"dataset": "ds2_blu", "model": "tour", "template": "<template>"}),
    ],
    "GET /v1/evaluations": [
        *paged("/v1/evaluations", "evaluation"),
        *(Ask(f"/v1/evaluations?model={ref}") for ref in REFS),
    ],
    "GET /v1/evaluations/{evaluation_id}": [Ask("/v1/evaluations/<evaluation>")],
    "GET /v1/evaluations/{evaluation_id}/compare/{other_id}": [
        Ask("/v1/evaluations/<evaluation>/compare/<other_evaluation>"),
        Ask("/v1/evaluations/eval1_blu/compare/<evaluation>"),
        Ask("/v1/evaluations/<evaluation>/compare/eval1_blu"),
    ],
    "POST /v1/models/{name}/versions/{number}/reviews": [
        *(Ask(f"{path}/reviews", {"size": 10}) for path in VERSIONS),
        Ask("/v1/models/tour/versions/1/reviews", {"size": 10, "source": "<labelled>"}),
        Ask("/v1/models/tour/versions/1/reviews", {"size": 10, "source": "<dataset>"}),
        *(
            Ask("/v1/models/tour/versions/1/reviews", {"source": "ds2_blu", "against": ref})
            for ref in REFS
        ),
    ],
    "GET /v1/models/{name}/versions/{number}/reviews": [
        *(Ask(f"{path}/reviews") for path in VERSIONS),
        *paged("/v1/models/tour/versions/1/reviews", "item"),
    ],
    "GET /v1/models/{name}/versions/{number}/reviews/summary": [
        Ask(f"{path}/reviews/summary") for path in VERSIONS
    ],
    "GET /v1/models/{name}/reviews/drift": [Ask(f"{path}/reviews/drift") for path in MODELS],
    "GET /v1/reviews/next": [Ask(f"/v1/reviews/next?version={ref}&reviewer=ada") for ref in REFS],
    "POST /v1/reviews/{item}/answers": [
        Ask("/v1/reviews/<item>/answers", {"reviewer": reviewer, "verdict": "A"})
        for reviewer in ("<reviewer>", "ada")
    ]
    + [Ask("/v1/reviews/<item>b/answers", {"reviewer": "<reviewer>", "verdict": "B"})],
    "POST /v1/reviews/{item}/skip": [
        Ask("/v1/reviews/<item>/skip", {"reviewer": reviewer}) for reviewer in ("<reviewer>", "ada")
    ],
    "GET /v1/engines": [Ask("/v1/engines")],
    **{
        f"POST {path}": [
            *(Ask(path, {**PAIR, "model": ref}) for ref in REFS),
            Ask(path, PAIR, {"selftaught-model": "<model>"}),
            Ask(path, {**PAIR, "model": "tour", "template": "<template>"}),
            Ask(path, {**PAIR, "model": "<model>", "stream": True}),
            Ask(path, {**PAIR, "model": "<model>"}, {"x-selftaught-project": "red"}),
        ]
        for path in ("/judge", "/v1/judge")
    },
    "POST /v1/score": [
        *(Ask("/v1/score", {"instruction": "i", "response": "r", "model": ref}) for ref in REFS),
        Ask(
            "/v1/score",
            {"instruction": "i", "response": "r", "model": "tour", "template": "<score_template>"},
        ),
    ],
    "POST /v1/rank": [
        *(
            Ask("/v1/rank", {"instruction": "i", "responses": ["good", "bad"], "model": ref})
            for ref in REFS
        ),
        Ask(
            "/v1/rank",
            {
                "instruction": "i",
                "responses": ["good", "bad"],
                "model": "tour",
                "template": "<template>",
            },
        ),
    ],
    **{
        f"POST {path}": [
            Ask(path, {"model": ref, "messages": [{"role": "user", "content": "i"}], **more})
            for ref in REFS
            for more in ({}, {"stream": True})
        ]
        for path in ("/v1/chat/completions", "/openai/v1/chat/completions")
    },
    "GET /openai/v1/models": [Ask("/openai/v1/models")],
    "GET /openai/v1/models/{ref}": [Ask(f"/openai/v1/models/{ref}") for ref in REFS],
    "POST /v1/judge/batches": [
        *(Ask(f"/v1/judge/batches?model={ref}", LINE, JSONL) for ref in REFS),
        Ask("/v1/judge/batches?model=tour&template=<template>", LINE, JSONL),
        Ask("/v1/judge/batches", LINE, {**JSONL, "selftaught-model": "<model>"}),
    ],
    "GET /v1/judge/batches": paged("/v1/judge/batches", "batch"),
    "GET /v1/judge/batches/{batch_id}": [Ask("/v1/judge/batches/<batch>")],
    "POST /v1/judge/batches/{batch_id}/cancel": [Ask("/v1/judge/batches/<batch>/cancel")],
    "GET /v1/judge/batches/{batch_id}/results": [
        Ask("/v1/judge/batches/<batch>/results"),
        Ask("/v1/judge/batches/<batch>/results?after=1"),
    ],
    "POST /v1/keys": [Ask("/v1/keys", {"name": "<key_name>", "scopes": ["read"]}, makes=True)],
    "GET /v1/keys": paged("/v1/keys", "key"),
    "POST /v1/keys/{key_id}/rotate": [Ask("/v1/keys/<key>/rotate", {})],
    "DELETE /v1/keys/{key_id}": [Ask("/v1/keys/<key>")],
    "POST /v1/projects": [Ask("/v1/projects", {"id": "<project>"})],
    "GET /v1/projects": paged("/v1/projects", "project"),
    "GET /v1/projects/{project_id}": [Ask("/v1/projects/<project>")],
    "POST /v1/projects/{project_id}/keys": [
        Ask("/v1/projects/<project>/keys", {"name": "k", "scopes": ["admin"]})
    ],
    "GET /metrics": [Ask("/metrics")],
    "GET /v1/usage": [Ask("/v1/usage")],
    "GET /v1/audit": [
        *paged("/v1/audit?route=/v1/jobs", "audit"),
        Ask("/v1/audit?key=<key_name>"),
        Ask("/v1/audit?request_id=<request>"),
        Ask("/v1/audit?project=<tenant>"),
    ],
    "PATCH /v1/projects/{project_id}": [Ask("/v1/projects/<tenant>", {"limits": {}})],
    "POST /v1/webhooks": [
        Ask("/v1/webhooks", {"url": "https://example.com/<webhook>", "events": ["*"]}, makes=True)
    ],
    "GET /v1/webhooks": paged("/v1/webhooks", "webhook"),
    "GET /v1/webhooks/{webhook_id}": [Ask("/v1/webhooks/<webhook>")],
    "PATCH /v1/webhooks/{webhook_id}": [
        Ask("/v1/webhooks/<webhook>", body)
        for body in ({"state": "enabled"}, {"description": "mine"}, {})
    ],
    "DELETE /v1/webhooks/{webhook_id}": [Ask("/v1/webhooks/<webhook>")],
    "POST /v1/webhooks/{webhook_id}/rotate-secret": [Ask("/v1/webhooks/<webhook>/rotate-secret")],
    "POST /v1/webhooks/{webhook_id}/test": [Ask("/v1/webhooks/<webhook>/test")],
    "GET /v1/webhooks/{webhook_id}/deliveries": [
        *paged("/v1/webhooks/<webhook>/deliveries", "delivery"),
        *paged("/v1/webhooks/whk1_blu/deliveries", "delivery"),
    ],
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": [
        Ask("/v1/webhooks/<webhook>/deliveries/<delivery>/redeliver"),
        Ask("/v1/webhooks/whk1_blu/deliveries/<delivery>/redeliver"),
    ],
}
"""METHOD path -> what is tried."""
