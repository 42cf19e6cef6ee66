"""The generator's work: each handler loads its rows, calls one pure function, publishes a file.

celery -A services.generator.tasks worker -Q generator --pool solo
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice

from selftaught import jsonl
from selftaught.artifacts import Published, Writer, publish_rows, resolve
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.hashing import stable_seed
from selftaught.inference import Engine
from selftaught.registry import judge_template, label_template, modify_template
from selftaught.versions import open_version
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler, make_app
from services.generator.curate import curate
from services.generator.judge import judge_pairs
from services.generator.label import choose, label_rows
from services.generator.pair import make_pairs
from services.generator.select import select


def run_select(lease: Lease) -> Result:
    """Filter, deduplicate, shuffle by the job's seed."""
    with (
        Writer("selection", lease.path("select")) as kept,
        Writer("dropped", lease.path("select_dropped")) as dropped,
    ):
        counts, report = select(
            resolve(lease.input["dataset"]),
            lease.recipe.select,
            lease.recipe.seed,
            kept.write,
            dropped.write,
        )
        counts["selected"] = counts.pop("kept")
        return Result(
            counts=counts,
            metrics=report,
            artifact=kept.publish(),
            side_artifacts=(dropped.publish(),),
        )


def run_label(lease: Lease) -> Result:
    """Instructions offset .. offset+limit of the selection get labels, from the seed's model."""
    settings = lease.recipe.select.label
    labelled = label_rows(
        _slice(lease),
        _engine(lease),
        label_template(settings.template),
        settings,
        _seed(lease),
    )
    return Result(
        counts=_named(labelled.counts, {"completion_tokens": "tokens"}),
        artifact=publish_rows("labelled", lease.path("label"), labelled.rows),
        side_artifacts=_dropped(lease, labelled.dropped),
    )


def run_choose(lease: Lease) -> Result:
    """The labelled rows that the quotas want become the selection."""
    quotas = lease.recipe.select.quotas
    assert quotas is not None  # or this stage would not have been planned
    with (
        Writer("selection", lease.path("choose")) as kept,
        Writer("dropped", lease.path("choose_dropped")) as dropped,
    ):
        rows = chain.from_iterable(jsonl.read(resolve(path)) for path in lease.input["labelled"])
        counts, report = choose(rows, quotas, kept.write, dropped.write)
        return Result(
            counts=counts,
            metrics=report,
            artifact=kept.publish(),
            side_artifacts=(dropped.publish(),),
        )


def run_pair(lease: Lease) -> Result:
    """Instructions offset .. offset+limit of the selection become pairs, by the seed's model."""
    pairs = make_pairs(
        _slice(lease),
        _engine(lease),
        modify_template(lease.recipe.pair.template),
        lease.recipe.pair,
        _seed(lease),
    )
    return Result(
        counts=_named(pairs.counts, {"completion_tokens": "tokens"}),
        artifact=publish_rows("pairs", lease.path("pair"), pairs.rows),
        side_artifacts=_dropped(lease, pairs.dropped),
    )


def run_judge(lease: Lease) -> Result:
    """Every pair of one pair chunk, judged N times in each order by the current judge."""
    judgments = judge_pairs(
        list(jsonl.read(resolve(lease.input["pairs"]))),
        _engine(lease),
        judge_template(lease.recipe.judge.template),
        lease.recipe.judge,
        _seed(lease),
        lease.input["quota"],
    )
    names = {
        "pairs": "judged_pairs",
        "right": "judgments_right",
        "wrong": "judgments_wrong",
        "ties": "judgments_tie",
        "parsed": "judgments_parsed",
        "unparsable": "judgments_unparsable",
        "completion_tokens": "tokens",
    }
    return Result(
        counts=_named(judgments.counts, names),
        artifact=publish_rows("judgments", lease.path("judge"), judgments.rows),
    )


def run_curate(lease: Lease) -> Result:
    """Rejection sampling over the whole iteration's judgments."""
    wanted = lease.recipe.wants_preferences
    with (
        Writer("examples", lease.path("curate")) as examples,
        Writer("preferences", lease.path("preferences")) as preferences,
        Writer("fates", lease.path("fates")) as fates,
    ):
        counts, report = curate(
            [resolve(path) for path in lease.input["judgments"]],
            [resolve(path) for path in lease.input["pairs"]],
            judge_template(lease.recipe.judge.template),
            lease.recipe.curate,
            _seed(lease),
            examples.write,
            preferences.write if wanted else None,
            fates.write,
        )
        counts["judgments_kept"] = counts.pop("judgments_right", 0)
        counts["training_examples"] = counts.pop("kept")
        return Result(
            counts=counts,
            metrics=report,
            artifact=examples.publish(),
            side_artifacts=(fates.publish(), *((preferences.publish(),) if wanted else ())),
        )


def _slice(lease: Lease) -> list[jsonl.Row]:
    rows = jsonl.read(resolve(lease.input["selection"]))
    return list(islice(rows, lease.input["offset"], lease.input["offset"] + lease.input["limit"]))


def _engine(lease: Lease) -> Engine:
    with transaction() as session:
        version = session.get_one(ModelVersion, lease.input["version"])
    return open_version(version, lease.job_id)


def _seed(lease: Lease) -> int:
    """Sampling depends on the job's seed and the iteration; never on worker, chunk or attempt."""
    return stable_seed(lease.recipe.seed, lease.iteration)


def _named(counts: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    return {names.get(key, key): count for key, count in counts.items()}


def _dropped(lease: Lease, rows: list[jsonl.Row]) -> tuple[Published, ...]:
    path = lease.path(f"{lease.kind}_dropped")
    return (publish_rows("dropped", path, rows),) if rows else ()


app = make_app(
    "generator",
    {
        "select": Handler(run_select),
        "label": Handler(run_label),
        "choose": Handler(run_choose),
        "pair": Handler(run_pair),
        "judge": Handler(run_judge),
        "curate": Handler(run_curate),
    },
)
