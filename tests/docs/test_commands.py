"""Every page's commands, in order, in one shell a page, on a real stack. `make test-docs`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from selftaught.stack.handle import Stack, stop_home
from tests.docs import checks
from tests.docs.blocks import PYTHON, ROOT, Block, commands, pages, read, spans
from tests.docs.conftest import checkout, environment, free_port
from tests.docs.matching import matches
from tests.docs.session import Session

pytestmark = pytest.mark.docs

SECONDS = 600
_ADDRESS = re.compile(r"(127\.0\.0\.1|localhost):8080\b")


class Page:
    """A page that is run: where its gateway is, and what its last command printed."""

    def __init__(self, session: Session, port: int) -> None:
        self.session, self.port, self.printed = session, port, ""

    def run(self, block: Block) -> None:
        """Run a block's commands and compare what they print with what is shown."""
        every = list(commands(block))
        for command, status in zip(every, block.statuses(len(every)), strict=True):
            self.printed = self._say(self._do(block, self._here(command.text), status))
            if command.shown is not None:
                self.compare(block, command.shown)

    def compare(self, block: Block, shown: str) -> None:
        assert matches(shown, self.printed, block.figures_vary), (
            f"{block.where}: shown is\n{shown}\n--- but this was printed:\n{self.printed}"
        )

    def _do(self, block: Block, text: str, status: int) -> str:
        if block.language == PYTHON:
            return self.session.python(text, status)
        return self.session.bash(text, status)

    def _here(self, text: str) -> str:
        """Port 8080 is the reader's; another one is this machine's."""
        text = _ADDRESS.sub(rf"\1:{self.port}", text)
        return re.sub(r"--port 8080\b", f"--port {self.port}", text)

    def _say(self, text: str) -> str:
        return re.sub(rf"(127\.0\.0\.1|localhost):{self.port}\b", r"\1:8080", text)


def _pages() -> Iterator[object]:
    for page in pages():
        name = str(page.relative_to(ROOT))
        if any(block.is_command and not block.not_run for block in read(page)):
            yield pytest.param(page, id=name)


def starts_its_own(blocks: list[Block]) -> bool:
    """Whether a page starts a stack itself, and so begins without one."""
    return any(
        re.search(r"selftaught (up|demo)\b", command.text)
        for block in blocks
        if block.is_command and not block.not_run
        for command in commands(block)
    )


@pytest.mark.parametrize("page", list(_pages()))
def test_page(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All commands of a page, one after the other."""
    blocks = read(page)
    own = starts_its_own(blocks)
    if own:
        home, port = tmp_path / "home", free_port()
    else:
        stack: Stack = request.getfixturevalue("library")
        home, port = stack.home, int(stack.gateway_url.rpartition(":")[2])
    folder = checkout(tmp_path / "repo")
    try:
        with Session(folder, environment(home, port), SECONDS) as session:
            shown = Page(session, port)
            for block in blocks:
                if block.is_output:
                    shown.compare(block, block.text)
                elif block.is_command and not block.not_run:
                    shown.run(block)
    finally:
        if own:
            stop_home(home)


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in pages()])
def test_what_is_not_run_is_well_formed(page: Path) -> None:
    """Also commands that a sentence names."""
    found = [
        f"{block.where}: {problem}"
        for block in read(page)
        if block.is_command and block.not_run
        for problem in checks.problems(block)
    ]
    found += [problem for span in spans(page.read_text()) for problem in checks.problems_of(span)]
    assert not found, "\n".join(found)


def test_the_site_builds_and_asks_nobody(tmp_path: Path) -> None:
    """No broken link, and nothing on its pages comes from elsewhere."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    loads = re.compile(
        r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(https?://[^\"' >]+)"
    )
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        assert not loads.findall(text), page
        assert "<merror" not in text, f"{page}: a formula that could not be read"
