"""What can be said of commands without running them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
import typer.main
import yaml

from tests.docs.blocks import CONSOLE, PYTHON, ROOT, Block, commands

_BREAKS = {"|", "||", "&&", ";", "&", ">", ">>", "<"}


def problems(block: Block) -> Iterator[str]:
    """What is wrong with a command block that is not run."""
    if block.language == PYTHON:
        try:
            compile(block.text, block.where, "exec")
        except SyntaxError as error:
            yield str(error)
        return
    text = "".join(command.text for command in commands(block))
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    if done.returncode:
        yield done.stderr
        return
    for words in _simple_commands(text):
        yield from _problems(words)
    assert block.language == CONSOLE or block.text


def problems_of(command: str) -> Iterator[str]:
    """What is wrong with a command that stands in a sentence, and may lack its arguments."""
    for words in _simple_commands(command):
        if words[:2] == ["python", "-m"]:
            if find_spec(words[2]) is None:
                yield f"{command}: there is no such module"
            continue
        for problem in _problems(words):
            if "Missing " not in problem:
                yield problem


def _simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each plain command of a script, without what stands before its name."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#"
        try:
            words = list(lexer)
        except ValueError:
            continue  # a quote over several lines: bash has checked it
        piece: list[str] = []
        for word in [*words, ";"]:
            if word not in _BREAKS:
                piece.append(word)
                continue
            while piece and re.match(r"^[A-Z_]+=", piece[0]):
                piece.pop(0)
            if piece:
                yield piece
            piece = []


def _problems(words: list[str]) -> Iterator[str]:
    name = Path(words[0]).name
    if name == "selftaught":
        yield from _selftaught(words[1:])
    elif name == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            yield f"{' '.join(words)}: {done.stderr.strip()}"
    elif words[:2] == ["docker", "compose"] and len(words) > 2:
        yield from _compose(words[2:])


def _selftaught(arguments: list[str]) -> Iterator[str]:
    """Parse arguments as the command line would; files need not be there."""
    from selftaught.cli import app

    command: Any = typer.main.get_command(app)  # of the click that typer brings
    path, context, rest = ["selftaught"], None, list(arguments)
    while hasattr(command, "get_command"):
        if not rest or rest[0].startswith(("-", "..")) or rest[0].isupper():  # COMMAND
            return
        context = command.context_class(command, info_name=path[-1], parent=context)
        inner = command.get_command(context, rest[0])
        if inner is None:
            yield f"{' '.join(path)} has no command {rest[0]!r}"
            return
        command = inner
        path.append(rest.pop(0))
    try:
        command.make_context(path[-1], rest, parent=context)
    except typer.Exit:
        return  # --help
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if "does not exist" not in error.format_message():
            yield f"{' '.join(path)}: {error.format_message()}"


def _compose(words: list[str]) -> Iterator[str]:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    verb, *others = words
    if verb in ("exec", "run"):
        flags = {"-v", "-e", "-u", "-w"}
        while others and others[0].startswith("-"):
            others = others[2:] if others[0] in flags else others[1:]
        if others and others[0] not in services:
            yield f"the compose file has no service {others[0]!r}"
        elif len(others) > 1:
            yield from _problems(others[1:])
    elif verb in ("stop", "up", "logs", "restart"):
        for word in others:
            if not word.startswith("-") and word not in services:
                yield f"the compose file has no service {word!r}"
