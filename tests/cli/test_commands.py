"""What the commands print, for people and for programs, of a real gateway."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from selftaught.artifacts import hash_folder
from selftaught.cli import app
from selftaught.database import transaction
from selftaught.database.tables import Job, LoggedVerdict, ModelVersion
from selftaught.settings import get_settings
from tests.api.helpers import add_versions
from tests.cli.conftest import Gateway
from tests.work.helpers import drain, make_job

Here = Callable[..., Result]


@pytest.fixture
def here(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """The command in this process: quicker than one of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFTAUGHT_URL", gateway.url)

    def invoke(*arguments: str | Path, code: int = 0, stdin: str | None = None) -> Result:
        done = CliRunner().invoke(app, list(map(str, arguments)), input=stdin)
        assert done.exit_code == code, done.output
        return done

    return invoke


def test_a_file_goes_up_and_is_found_again(gateway: Gateway, here: Here, tmp_path: Path) -> None:
    file = tmp_path / "[mine]\x1b.jsonl"
    file.write_text('{"ask": "one"}\n{"ask": "two"}\n')
    done = here("datasets", "upload", file, "--column", "ask", "--name", "first")
    dataset = done.stdout.strip()
    assert done.stderr == f"2 rows of kind instructions: {dataset}\n"
    assert here("datasets", "list").stdout.split("\t")[:4] == [
        dataset,
        "first",
        "instructions",
        "2",
    ]
    shown = json.loads(here("datasets", "show", dataset, "--json").stdout)
    assert shown == gateway.get(f"/v1/datasets/{dataset}")
    assert json.loads(here("datasets", "list", "--json").stdout) == [shown]
    assert here("datasets", "delete", dataset).stdout == f"deleted {dataset}\n"
    assert here("datasets", "list").output == ""
    gone = here("datasets", "show", dataset, code=1).stderr
    assert gone.endswith("`selftaught datasets list` shows those there are\n")


def test_every_bad_line_is_named(here: Here, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"instruction": "a"}\n' + '{"x": 1}\n' * 30)
    done = here("datasets", "upload", file, "--json", code=1)
    assert done.stdout == ""
    said = done.stderr.splitlines()
    assert "30 errors, the first in line 2; nothing was kept (422 invalid_dataset)" in said[0]
    assert said[1] == "line 2, instruction: missing" and len(said) == 22
    assert said[-1] == ".. and 10 more"


def test_lists_go_over_pages(gateway: Gateway, here: Here) -> None:
    for _ in range(3):
        make_job()
    whole = [one["id"] for one in json.loads(here("jobs", "list", "--json").stdout)]
    assert len(whole) == 3
    assert [
        line.split("\t")[0] for line in here("jobs", "list", "--limit", "2").stdout.split("\n")
    ][:-1] == whole[:2]
    from selftaught.cli import gateway as module

    small = pytest.MonkeyPatch()
    with small.context() as patched:
        patched.setattr(module, "PAGE", 1)
        again = json.loads(here("jobs", "list", "--json").stdout)
        assert [one["id"] for one in again] == whole
    assert here("jobs", "list", "--state", "paused").output == ""


def test_a_job_from_files_with_settings(gateway: Gateway, here: Here, tmp_path: Path) -> None:
    rows = tmp_path / "rows.txt.gz"
    rows.write_bytes(gzip.compress(b"".join(b"say %d\n" % n for n in range(20))))
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text('{"instruction": "i", "chosen": "a", "rejected": "b"}\n')
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\niterations: 4\n")
    done = here(
        "jobs", "create", "--dataset", rows, "--labelled", labelled, "--recipe", recipe,
        "--set", "iterations=2", "--set", "validate.instructions=3", "--set", "judge.quota=null",
        "--set", "curate.label=majority", "--set", "judge.need=all", "--model", "m",
    )  # fmt: skip
    job_id = done.stdout.strip()
    assert done.stderr.endswith(f"watch it: selftaught jobs watch {job_id}\n")
    assert "note: the shipped model knows letter puzzles and nothing else; if your" in done.stderr
    job = gateway.get(f"/v1/jobs/{job_id}")
    assert (job["model"], job["recipe"]["name"], job["recipe"]["iterations"]) == ("m", "mine", 2)
    assert job["recipe"]["curate"]["label"] == "majority"
    shown = json.loads(here("jobs", "show", job_id, "--json").stdout)
    (iteration,) = shown.pop("iterations")
    assert iteration["id"] == gateway.get(f"/v1/jobs/{job_id}/iterations")["data"][0]["id"]
    assert shown == job
    text = here("jobs", "show", job_id).stdout
    assert "recipe      mine\n" in text and "iterations  0/2\n" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--dataset", "ds_none"], 1, "there is no dataset 'ds_none' (404 dataset_not_found)"),
        (["--dataset", "rows.jsnl"], 1, "there is no file rows.jsnl, and a dataset's id begins"),
        (["--dataset", "ds_none", "--set", "iterations"], 2, "'iterations' is not NAME=VALUE"),
        (["--dataset", "ds_none", "--set", "=1"], 2, "is not NAME=VALUE"),
        (["--dataset", "ds_none", "--set", "seed=1", "--set", "seed.x=1"], 2, "seed has a value"),
        (["--dataset", "ds_none", "--recipe", "gone.yaml"], 1, "there is no file gone.yaml"),
        (["--dataset", "ds_none", "--recipe", "nobody"], 1, "`selftaught recipes list` shows them"),
        (
            ["--dataset", "ds_none", "--set", "train.stepz=1"],
            1,
            "overrides.train.stepz: unknown setting; did you mean train.steps?",
        ),
    ],
)
def test_what_is_wrong_with_a_job(here: Here, arguments: list[str], code: int, said: str) -> None:
    done = here("jobs", "create", *arguments, code=code)
    assert said in " ".join(done.stderr.replace("│", " ").split()), done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "train.stepz=1"], "train.stepz: unknown setting; did you mean train.steps?"),
        (["--set", "judge.samples=0"], "judge.samples: "),
        (["--recipe", "nobody"], "`selftaught recipes list` shows them"),
        (["--model", "My Judge"], "error: model: not a name: lower case letters, digits and . _ -"),
        (["--set", "base_model=lama"], "unknown base model 'lama'; known: smallworld"),
        (["--labelled", "gone.jsonl"], "there is no file gone.jsonl"),
    ],
)
def test_nothing_goes_up_for_a_job_that_cannot_be(
    gateway: Gateway, here: Here, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "rows.txt").write_text("say 1\nsay 2\n")
    done = here("jobs", "create", "--dataset", "rows.txt", *arguments, code=1)
    assert said in done.stderr
    assert gateway.get("/v1/datasets")["data"] == []


def test_what_went_up_for_nothing_is_named(gateway: Gateway, here: Here, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("say 1\nsay 2\n")
    done = here("jobs", "create", "--dataset", "rows.txt", code=1)
    (dataset,) = (one["id"] for one in gateway.get("/v1/datasets")["data"])
    assert f"the upload stays as {dataset}: pass --dataset {dataset} next time\n" in done.stderr
    assert "(422 dataset_too_small)" in done.stderr and "upload more (422" in done.stderr
    (tmp_path / "rows.txt").write_text("".join(f"say {n}\n" for n in range(40)))
    done = here("jobs", "create", "--dataset", "rows.txt", code=1)
    assert "or set fewer aside (--set validate.instructions=10 of the CLI)" in done.stderr


def test_what_can_be_asked_of_a_job(gateway: Gateway, here: Here) -> None:
    job_id = make_job()
    assert here("jobs", "pause", job_id).stdout == f"{job_id} is paused\n"
    assert json.loads(here("jobs", "resume", job_id, "--json").stdout)["state"] == "running"
    refused = here("jobs", "delete", job_id, code=1).stderr
    assert refused.endswith("(409 job_not_ended)\n`selftaught jobs cancel JOB` first\n")
    drain(job_id)
    assert "(409 job_finished)" in here("jobs", "cancel", job_id, code=1).stderr
    names = {line.split("\t")[1] for line in here("jobs", "data", job_id).stdout.splitlines()}
    assert {"select", "judge"} <= names
    done = here("jobs", "download", job_id, "1", "judge")
    assert done.stdout.startswith("judge-1.jsonl: ")
    rows = Path("judge-1.jsonl").read_text().splitlines()
    assert json.loads(rows[0]) == {"n": 0}
    assert "404 no_such_data" in here("jobs", "download", job_id, "1", "nothing", code=1).stderr
    assert [path.name for path in Path().glob("*1*")] == ["judge-1.jsonl"], "no parts are left"
    here("jobs", "delete", job_id)
    with transaction() as session:
        assert session.get(Job, job_id) is None


def test_models_versions_and_aliases(gateway: Gateway, here: Here) -> None:
    add_versions("m", [0, 1, 2], latest=1)
    assert here("models", "list").stdout == "m\t3\tlatest -> 1\n"
    lines = here("models", "versions", "m").stdout.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [
        ["m:2", "-"],
        ["m:1", "latest"],
        ["m:0", "-"],
    ]
    for name in ("m", "m:latest", "m:1"):
        shown = json.loads(here("models", "show", name, "--json").stdout)
        assert shown == gateway.get("/v1/models/m/versions/1")
    assert here("models", "show", "m:2").stdout.startswith("version  m:2\naliases  none\n")
    assert here("models", "aliases", "m").stdout.startswith("latest\tm:1\t1\t")
    refused = here("models", "promote", "m:2", code=1)
    assert "(409 gate_refused)" in refused.stderr and "--force --reason" in refused.stderr
    assert here("promote", "m", code=2) and here("promote", "m:x", code=2)
    assert "nothing_to_roll_back_to" in here("models", "rollback", "m", code=1).stderr
    assert here("models", "delete", "m:0").stdout == "deleted m:0\n"
    assert "unknown_model" in here("models", "show", "m:0", code=1).stderr
    assert (
        "nothing at /v1/models/../jobs/versions"
        in here("models", "versions", "../jobs", code=1).stderr
    )
    assert "'..' is not a name" in here("models", "versions", "..", code=2).stderr


def test_the_files_of_a_version_come_over_http(
    gateway: Gateway, here: Here, tmp_path: Path
) -> None:
    add_versions("m", [0, 1], latest=1)
    for number, name in ((0, "config.json"), (1, "adapter_config.json")):
        home = get_settings().versions_dir / "m" / str(number)
        home.mkdir(parents=True)
        (home / name).write_text('{"base_model_name_or_path": "/far/away"}')
        with transaction() as session:
            row = session.query(ModelVersion).filter_by(number=number).one()
            row.sha256 = hash_folder(home)
    made = here("export", "m", "out", "--adapter", "--base", "org/base", "--json")
    assert json.loads(made.stdout)["version"] == "m:1"
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings == {"base_model_name_or_path": "org/base"}
    assert "exists already" in here("export", "m", "out", "--adapter", code=1).stderr
    whole = here("export", "m:0", "whole", "--adapter", "--base", "b", code=2)
    assert "whole weights" in " ".join(whole.stderr.split())
    assert "only with" in here("export", "m", "other", "--base", "b", code=2).stderr
    assert not (tmp_path / "other").exists() and not (tmp_path / "whole").exists()


def test_recipes_and_usage(gateway: Gateway, here: Here) -> None:
    assert "quickstart\tsmallworld\t5\t2700\t3\tfull" in here("recipes", "list").stdout
    shown = here("recipes", "show", "llama-3-8b").stdout
    assert "engine.dtype\tauto\n" in shown and "judge.quota\tnull\n" in shown
    assert json.loads(here("usage", "--json").stdout) == gateway.get("/v1/usage")
    assert "stored\t0 B\tno limit\t-" in here("usage").stdout


def test_questions_that_make_no_sense(here: Here, tmp_path: Path) -> None:
    assert "none of them" in here("judge", "only this", code=2).stderr
    assert "only one text" in here("judge", "-", "-", "b", code=2).stderr
    assert "stdin is no JSON" in here("judge", stdin="nonsense", code=1).stderr
    assert "one JSON object" in here("judge", stdin="[1]", code=1).stderr
    assert "No such file" in here("judge", "@gone", "a", "b", code=1).stderr
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "binary: is no text" in here("judge", "@binary", "a", "b", code=1).stderr
    asked = json.dumps({"instruction": "i", "response_a": "a", "response_b": "b", "vote": 1})
    assert here("judge", stdin=asked, code=1).stderr == (
        "error: vote: Extra inputs are not permitted (422 invalid_request)\n"
    )


@pytest.mark.parametrize(
    ("verdict", "agree", "said"),
    [
        ("A", True, "A is better (probability 0.510)\n"),
        ("tie", False, "tie: the two orders disagree (A 0.51, B 0.49)\n"),
        ("tie", True, "tie: neither is better (A 0.51, B 0.49)\n"),
    ],
)
def test_a_verdict_and_its_probability_say_the_same(
    capsys: pytest.CaptureFixture[str], verdict: str, agree: bool, said: str
) -> None:
    from selftaught.cli import judge

    likely = {"a": 0.51, "b": 0.49, "tie": 0.0}
    found = {"verdict": verdict, "probability": likely, "orders": [], "orders_agree": agree}
    judge.tell({**found, "id": "vdt_1", "model": "m:1", "latency": {"total": 1}})
    assert capsys.readouterr().out == said


def test_which_version_gave_a_verdict(gateway: Gateway, here: Here) -> None:
    assert here("verdicts", "list").stderr.startswith("none is logged: the log is off unless")
    refused = here("verdicts", "show", "vdt_none", code=1).stderr
    assert "there is no verdict 'vdt_none' in the log" in refused
    assert "SELFTAUGHT_VERDICT_LOG" in refused
    add_versions("m", [0, 1], latest=1)
    log_verdict("m", 1)
    line = here("verdicts", "list", "--model", "m").stdout.split("\t")
    assert line[:5] == ["vdt_1", "m:1", "m:latest", "A", "1.0"]
    assert here("verdicts", "list", "--version", "0").output == ""
    shown = here("verdicts", "show", "vdt_1").stdout
    assert "version       m:1\n" in shown and "asked as      m:latest\n" in shown
    for arguments, found in (
        (("show", "vdt_1"), gateway.get("/v1/verdicts/vdt_1")),
        (("list",), gateway.get("/v1/verdicts")["data"]),
    ):
        assert json.loads(here("verdicts", *arguments, "--json").stdout) == found


def log_verdict(model: str, number: int) -> None:
    """The answer vdt_1 to somebody who asked for latest."""
    with transaction() as session:
        version = session.query(ModelVersion).filter_by(model=model, number=number).one()
        session.add(
            LoggedVerdict(
                id="vdt_1",
                created_at=dt.datetime.now(dt.UTC),
                version_id=version.id,
                alias=f"{model}:latest",
                template="smallworld",
                template_sha256="0" * 64,
                verdict="A",
                confidence=1.0,
                orders_agree=True,
                orders=[],
                votes=1,
                parse_failures=0,
                prompt_tokens=2,
                completion_tokens=2,
                cached=False,
                total_seconds=0.1,
                queue_seconds=0.0,
                engine_seconds=0.1,
                content_sha256="0" * 64,
            )
        )


def test_a_verdict_tells_its_id_and_whose_letters_a_text_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from selftaught.cli import judge

    text = "B is longer. [[B]]"
    orders = [
        {"order": "AB", "verdict": "A", "reasoning": "so it is [[A]]"},
        {"order": "BA", "verdict": "A", "reasoning": text},
    ]
    told = {"verdict": "A", "probability": None, "orders_agree": True, "id": "vdt_1"}
    told |= {"model": "m:1", "latency": {"total": 0.234}}
    judge.tell({**told, "orders": orders})
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == [
        "AB: A  so it is [[A]]",
        f"BA (shown swapped; A in its text is B here): A  {text}",
    ]
    assert err == "m:1, 0.23 s, vdt_1\n"
    judge.tell({**told, "orders": [{"order": "BA", "verdict": "A"}]})
    assert capsys.readouterr().out.splitlines()[1:] == ["BA (shown swapped): A"]


def test_the_audit_log_names_commands_and_what_was_made(gateway: Gateway, here: Here) -> None:
    here("projects", "create", "search")
    hook = here("webhooks", "create", "https://example.com/x").stdout.split("\t")[0]
    made, command = here("audit").stdout.splitlines()
    assert made.endswith(f"\t/v1/webhooks\tPOST\t201\t/v1/webhooks/{hook}")
    assert command.endswith("\tprojects create search\tCLI\t200\t-")
    found = json.loads(here("audit", "--method", "CLI", "--json").stdout)
    assert [one["path"] for one in found] == ["search"]
    refused = here("webhooks", "create", "http://127.0.0.1:9/x", code=1).stderr
    assert "SELFTAUGHT_WEBHOOK_NETWORKS: docs/webhooks.md" in refused


def test_keys_and_projects_as_json(here: Here) -> None:
    bare = here("keys", "create", "--name", "ci", code=2).stderr
    assert "at least one --scope: read, write, judge," in " ".join(bare.replace("│", " ").split())
    made = json.loads(here("keys", "create", "--name", "ci", "--scope", "read", "--json").stdout)
    secret = made.pop("secret")
    (listed,) = json.loads(here("keys", "list", "--json").stdout)
    assert listed == made and secret.startswith(made["prefix"])
    assert json.loads(here("projects", "create", "red", "--json").stdout)["id"] == "red"
    assert [one["id"] for one in json.loads(here("projects", "list", "--json").stdout)] == [
        "default",
        "red",
    ]
    limited = here("projects", "limit", "red", "--stored-bytes", "5", "--json").stdout
    assert json.loads(limited)["limits"]["stored_bytes"] == 5
    assert json.loads(here("keys", "revoke", "ci", "--json").stdout)["revoked_at"]


def test_a_table_on_a_terminal_does_not_steer_it(
    gateway: Gateway, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from selftaught.cli import output

    with transaction() as session:
        job_id = make_job()
        session.get_one(Job, job_id).model = "evil\x1b[31m\r\u202ename"
    monkeypatch.setattr(output, "out", Console(force_terminal=True, width=200, no_color=True))
    shown = here("jobs", "list").stdout
    assert "job " in shown and "evil\ufffd[31m\ufffd\ufffdname" in shown
