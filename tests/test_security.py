"""What bandit cannot know of this code: pyproject.toml names the rules that these stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path for room in ("selftaught", "services") for path in (ROOT / room).rglob("*.py")
)
Call = tuple[str, str, dict[str, object]]


def calls(*names: str) -> Iterator[Call]:
    """Calls of functions and methods of these names: where, the whole name, and keywords that are
    constants, in the call itself or in a dictionary of the same file (`**only_data`)."""
    for path in SOURCES:
        tree = list(ast.walk(ast.parse(path.read_text())))
        shared = {
            ast.unparse(node.targets[0]): constants(
                (key.value if isinstance(key, ast.Constant) else None, value)
                for key, value in zip(node.value.keys, node.value.values, strict=True)
            )
            for node in tree
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        }
        for node in tree:
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in names:
                said = constants((word.arg, word.value) for word in node.keywords)
                for word in node.keywords:
                    if word.arg is None:
                        said |= shared.get(ast.unparse(word.value), {})
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), said


def constants(pairs: Iterable[tuple[Any, ast.expr]]) -> dict[str, object]:
    return {
        name: value.value
        for name, value in pairs
        if isinstance(name, str) and isinstance(value, ast.Constant)
    }


def test_models_come_from_this_machine_and_bring_no_code() -> None:
    """B615 asks for pinned downloads; nothing here downloads, which is stricter. (An adapter's
    folder is one of the platform's own, by its absolute path.)"""
    found = list(calls("from_pretrained"))
    assert len(found) > 5
    for where, called, said in found:
        assert called.startswith(("Auto", "PeftModel.")), where
        assert said.get("trust_remote_code", False) is False, where
        assert called.startswith("PeftModel.") or said.get("local_files_only") is True, where


def test_files_of_tensors_hold_no_code() -> None:
    found = [said for _, called, said in calls("load") if called == "torch.load"]
    assert found and all(said.get("weights_only") is True for said in found)


def test_no_program_is_started_through_a_shell() -> None:
    """B404, B603 and B607 warn of every program; each here is a list that no shell reads."""
    found = list(calls("Popen", "run", "check_call", "check_output", "create_subprocess_exec"))
    assert any(called == "subprocess.Popen" for _, called, _ in found)
    assert not [where for where, _, said in found if said.get("shell")]
    assert not list(calls("system", "popen", "create_subprocess_shell", "getoutput"))
