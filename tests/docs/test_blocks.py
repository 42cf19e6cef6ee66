"""The harness itself, and that every page's blocks can be read. Quick: part of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.docs.hooks import LINK
from tests.docs import checks
from tests.docs.blocks import ROOT, BadPage, Block, commands, pages, parse, read, spans
from tests.docs.conftest import environment
from tests.docs.matching import matches
from tests.docs.session import Failed, Session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    with Session(tmp_path, environment(tmp_path / "home", 1), seconds=20) as found:
        yield found  # type: ignore[misc]


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in pages()])
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in read(page):
        if block.is_command and not block.not_run:
            assert list(commands(block))


def parsed(text: str) -> list[Block]:
    return parse(ROOT / "page.md", text)


@pytest.mark.parametrize(
    "text",
    [
        "```\nselftaught up\n```\n",
        "```text\nselftaught up\n```\n",
        "```text\n$ ls\n```\n",
        "\n    selftaught up\n",
        "<!-- not run: no -->\n```bash\nls\n```\n",
        "<!-- not run: there is no block here -->\n\nText.\n",
        "<!-- run: figures vary -->\n```json\n{}\n```\n",
        "```bash\nls\n",
        "```rust\nfn main() {}\n```\n",
    ],
)
def test_what_hides_commands_is_refused(text: str) -> None:
    with pytest.raises(BadPage):
        parsed(text)


def test_marks_belong_to_the_block_behind_them() -> None:
    setup, run, shown, left = parsed(
        "<!-- setup\nX=1\n-->\n"
        "<!-- run: figures vary, status 3 -->\n```console\n$ ls\na 1\n```\n"
        "<!-- output -->\n```json\n{}\n```\n"
        "<!-- not run: needs a GPU -->\n   ```bash\n   nvidia-smi\n   ```\n"
    )
    assert setup.hidden and setup.text == "X=1\n" and setup.is_command
    assert run.figures_vary and run.statuses(2) == [0, 3]
    assert shown.is_output and not shown.is_command
    assert left.not_run == "needs a GPU" and left.text == "nvidia-smi\n"


def test_a_console_block_is_commands_and_what_they_print() -> None:
    (block,) = parsed(
        "```console\n$ curl -d '{\n  1}' \\\n  x\none\n\ntwo\n$ cat <<E\n$ in\nE\n$ true\n```\n"
    )
    first, second, third = commands(block)
    assert first.text == "curl -d '{\n  1}' \\\n  x\n" and first.shown == "one\n\ntwo"
    assert second.text == "cat <<E\n$ in\nE\n" and second.shown is None
    assert third.text == "true\n"


@pytest.mark.parametrize(
    ("shown", "printed", "vary", "same"),
    [
        ("a b", "a  b\n", False, True),
        ("a b", "a c", False, False),
        ("a .. d", "a b\nc d", False, True),
        ("a .. d", "a b c", False, False),
        ('{"id": "job_1a..", "n": 1}', '{"id":"job_01a21f6764e1c96527c1c19c","n":1}', False, True),
        ('{"n": 1}', '{"n":2}', False, False),
        ('{"n": 1}', '{"n":2}', True, True),
        ("0.25 to 0.5", "0.1 to 1", True, True),
        ("0.25 passed", "0.1 failed", True, False),
        ("at 2026-11-27 17:14:46", "at 2027-01-01T00:00:00.5Z", False, True),
    ],
)
def test_output_is_compared(shown: str, printed: str, vary: bool, same: bool) -> None:
    assert matches(shown, printed, vary) is same


def test_a_session_remembers_and_sees_failures(session: Session) -> None:
    session.bash("x=5; export Y=$x; mkdir -p inner; cd inner\n")
    assert session.bash("echo $x; pwd\n").split()[0] == "5"
    assert session.python("import os\ny = os.environ['Y']\nprint(os.getcwd())\n").endswith(
        "inner\n"
    )
    assert session.python("print(y)\n") == "5\n"
    assert session.bash("false\n", status=1) == ""
    with pytest.raises(Failed):
        session.python("1 / 0\n")
    with pytest.raises(Failed, match="unbound"):
        session.bash("echo $nothing\n")


@pytest.mark.parametrize("text", ["sleep 60\n", "exit 0\n"])
def test_a_command_that_takes_the_shell_with_it_fails(tmp_path: Path, text: str) -> None:
    with Session(tmp_path, environment(tmp_path, 1), seconds=2) as found, pytest.raises(Failed):
        found.bash(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("selftaught up --detach", None),
        ("X=1 selftaught plan quickstart --gpu-memory 80 | tail", None),
        ("selftaught evaluate --benchmark no-such-file --model a:0", None),
        ("selftaught upp", "no command"),
        ("selftaught up --backwards", "backwards"),
        ("make test", None),
        ("make tea", "tea"),
        ("docker compose exec api selftaught gc --dry", "dry"),
        ("docker compose stop api generater", "generater"),
    ],
)
def test_commands_that_are_not_run_are_checked(text: str, problem: str | None) -> None:
    found = "\n".join(checks.problems(Block(ROOT / "x.md", 1, "bash", text + "\n")))
    assert (problem is None and not found) or (problem is not None and problem in found)


def test_commands_in_sentences_are_found() -> None:
    text = "Ask `selftaught status`, or `make x`.\n```bash\necho `make y`\n```\nNot `make`.\n"
    assert spans(text) == ["selftaught status", "make x"]


def test_links_are_found() -> None:
    assert LINK.sub("<>", "a [b](../c.md#d) ![e](f.png) [`g`](h)") == "a <> <> <>"
