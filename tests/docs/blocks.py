"""Fenced blocks of a page, and what the comments before them say."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL, CONSOLE, PYTHON = "bash", "console", "python"
RUN = (SHELL, CONSOLE, PYTHON)
OTHERS = ("text", "json", "yaml", "math", "sse", "http", "toml", "ini", "html")
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^\s`]*)\s*$")
MARK = re.compile(r"^<!--\s*(?P<kind>not run|run|output|setup)\s*(?::\s*(?P<text>.*?))?\s*-->$")
INDENTED = re.compile(r"^ {4}(\$ |(selftaught|curl|make|docker|pip|git|python3?|export) |[A-Z_]+=)")
SPAN = re.compile(r"`((?:selftaught|make|python -m|docker compose) [^`\n]+)`")
LOOKS_LIKE_COMMANDS = re.compile(
    r"^(\$ |(selftaught|curl|make|docker|pip|git|python3?|export|cp|mkdir) )", re.MULTILINE
)


class BadPage(AssertionError):
    """A page that the harness cannot read; says where and why."""


@dataclass
class Block:
    """A fenced block, or a hidden setup (`language` bash, `hidden`)."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None = None
    remarks: list[str] = field(default_factory=list)
    is_output: bool = False
    hidden: bool = False

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_command(self) -> bool:
        return self.language in RUN and not self.is_output

    def statuses(self, count: int) -> list[int]:
        """How its commands end: as `status` says, one number for each, or one for the last."""
        found = [r.split()[1:] for r in self.remarks if r.startswith("status ")]
        numbers = [int(one) for one in found[0]] if found else [0]
        return [0] * (count - len(numbers)) + numbers

    @property
    def figures_vary(self) -> bool:
        return "figures vary" in self.remarks


def pages() -> list[Path]:
    """All pages that have commands for users."""
    found = [ROOT / "README.md"]
    for folder in ("docs", "examples"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return found


def read(page: Path) -> list[Block]:
    """The blocks of a page, in order; raises BadPage."""
    return parse(page, page.read_text())


def parse(page: Path, content: str) -> list[Block]:
    """:func:`read` of a page with this content."""
    lines = content.split("\n")
    found: list[Block] = []
    mark: re.Match[str] | None = None
    index = 0
    while index < len(lines):
        line = lines[index]
        if line.strip() == "<!-- setup":
            end = _find(lines, index, lambda one: one.strip() == "-->", page)
            text = "\n".join(lines[index + 1 : end]) + "\n"
            found.append(Block(page, index + 1, SHELL, text, hidden=True))
            index, mark = end + 1, None
            continue
        said = MARK.match(line.strip())
        if said:
            if mark:
                raise BadPage(f"{page}:{index + 1}: two marks, one after the other")
            mark = said
        elif fence := FENCE.match(line):
            closing = re.compile(rf"^ *{fence['fence']}\s*$")
            end = _find(lines, index, lambda one, closing=closing: bool(closing.match(one)), page)
            indent = len(fence["indent"])
            text = "".join(one[indent:] + "\n" for one in lines[index + 1 : end])
            found.append(_block(page, index + 1, fence["language"], text, mark))
            index, mark = end, None
        elif INDENTED.match(line) and not (index and lines[index - 1].strip()):
            raise BadPage(f"{page}:{index + 1}: commands stand in a fenced block")
        elif line.strip() and mark:
            raise BadPage(f"{page}:{index}: the mark does not stand before a block")
        index += 1
    if mark:
        raise BadPage(f"{page}: a mark at its end")
    return found


def _find(lines: list[str], start: int, ends: object, page: Path) -> int:
    for index in range(start + 1, len(lines)):
        if ends(lines[index]):  # type: ignore[operator]
            return index
    raise BadPage(f"{page}:{start + 1}: does not end")


def _block(page: Path, line: int, language: str, text: str, mark: re.Match[str] | None) -> Block:
    block = Block(page, line, language, text)
    if mark is not None:
        kind, said = mark["kind"], mark["text"] or ""
        if kind == "not run":
            block.not_run = said
            if len(said) < 8:
                raise BadPage(f"{block.where}: 'not run' needs a reason")
        block.is_output = kind == "output"
        if kind in ("run", "output"):
            block.remarks = [one.strip() for one in said.split(",") if one.strip()]
    if block.is_output:
        return block
    if language not in (*RUN, *OTHERS):
        raise BadPage(
            f"{block.where}: a block of language {language!r}; commands are {', '.join(RUN)}, "
            f"others {', '.join(OTHERS)}"
        )
    if language not in RUN and language == "text" and LOOKS_LIKE_COMMANDS.search(text):
        raise BadPage(f"{block.where}: looks like commands, but is no {' or '.join(RUN)} block")
    if language not in RUN and mark is not None:
        raise BadPage(f"{block.where}: only commands can be marked {mark['kind']!r}")
    return block


def spans(content: str) -> list[str]:
    """Commands that a page names in the middle of a sentence."""
    found, fence = [], ""
    for line in content.split("\n"):
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark["fence"]
        elif fence and line.strip() == fence:
            fence = ""
        elif not fence:
            found += SPAN.findall(line)
    return found


@dataclass(frozen=True)
class Command:
    """A command as one types it, and what a console block shows that it prints (None: nothing)."""

    text: str
    shown: str | None = None


def commands(block: Block) -> Iterator[Command]:
    """The commands of a console block, with their output; of others, the one that they are."""
    if block.language != CONSOLE:
        yield Command(block.text)
        return
    lines = block.text.rstrip("\n").split("\n")
    if not lines[0].startswith("$ "):
        raise BadPage(f"{block.where}: a console block begins with '$ '")
    index = 0
    while index < len(lines):
        text = lines[index][2:]
        index += 1
        while index < len(lines) and not complete(text):
            text += "\n" + lines[index].removeprefix("> ")
            index += 1
        shown = []
        while index < len(lines) and not lines[index].startswith("$ "):
            shown.append(lines[index])
            index += 1
        yield Command(text + "\n", "\n".join(shown).strip("\n") or None)


def complete(text: str) -> bool:
    """Whether a shell would run this, or wait for more lines."""
    if text.endswith("\\"):
        return False
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    return done.returncode == 0 and "here-document" not in done.stderr
