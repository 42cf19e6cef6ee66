"""From an uploaded file's records to dataset rows; every bad row is named, none is guessed at.

Pure: reads a binary file, yields rows and errors, knows nothing about HTTP or the database. Memory
does not grow with the file (records.py). What most rows of large files are is read in blocks by
plain.py, and this module reads what that does not take.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from selftaught.parquet import is_parquet
from services.api import conversations
from services.api.plain import MAX_ID_CHARS, plain_rows, read_block
from services.api.records import (
    Fields,
    Format,
    Items,
    Kind,
    LineError,
    Lines,
    Row,
    Rows,
    Seen,
    jsonl,
    records,
)

_LIKELY = ("text", "question", "query", "input", "content", "message", "request", "user")


def parse(
    file: BinaryIO,
    form: Format,
    kind: Kind,
    column: str | None,
    max_row_bytes: int,
    max_bytes: int,
) -> Items:
    """Every row or error of a file, in order; what one by one or in blocks makes no difference to.

    Rows of instructions: {id, instruction} and, where the source has them, messages (the whole
    conversation, [{role, content}]; `instruction` is then its first user turn), language, toxic,
    redacted, reference. Labelled rows: {id, instruction, chosen, rejected, subset}. Pairs: {id,
    instruction, response_a, response_b} and maybe context, the conversation before the instruction.

    `column` names the field that holds the instruction; default: `instruction`, else `prompt`, else
    a conversation (`messages`, `conversation` as in WildChat, `conversations` as in ShareGPT); the
    field may be one itself, as may the responses of labelled rows (TRL's preferences).
    Fields that are not asked for are left out. A Parquet file may unpack to `max_bytes`, and a row
    have `max_row_bytes`; raises records.TooLarge.
    """
    if form == "jsonl" and kind == "instructions" and not is_parquet(file):
        with Seen() as seen:
            yield from _by_blocks(file, column, max_row_bytes, seen)
    else:
        yield from one_by_one(file, form, kind, column, max_row_bytes, max_bytes)


def one_by_one(
    file: BinaryIO,
    form: Format,
    kind: Kind,
    column: str | None,
    max_row_bytes: int,
    max_bytes: int,
) -> Items:
    """What :func:`parse` gives, without its short cut."""
    with Seen() as seen:
        for number, record in records(file, form, kind, column, max_row_bytes, max_bytes):
            yield from _checked(number, record, kind, column, seen)


def _by_blocks(file: BinaryIO, column: str | None, max_row_bytes: int, seen: Seen) -> Items:
    """JSON lines a block at a time where all of its rows are plain, else line by line."""
    lines = Lines(file, max_row_bytes)
    careful = jsonl(lines)
    while True:
        start = file.tell()
        block = read_block(file, max_row_bytes)
        if not block:
            return
        rows = plain_rows(block, lines.number + 1, column, max_row_bytes, seen)
        if rows is not None:
            yield Rows(lines.number + 1, rows)
            lines.number += len(rows)
            continue
        end = file.tell()
        file.seek(start)
        for number, record in careful:
            yield from _checked(number, record, "instructions", column, seen)
            if file.tell() >= end:
                break


def _checked(
    number: int, record: Fields | LineError, kind: Kind, column: str | None, seen: Seen
) -> Iterator[Row | LineError]:
    if isinstance(record, LineError):
        yield record
    else:
        yield from _row(number, record, kind, column, seen)


def _row(
    line: int, fields: Fields, kind: Kind, column: str | None, seen: Seen
) -> Iterator[Row | LineError]:
    """The row that a record makes, or everything that is wrong with it."""
    errors: list[LineError] = []
    if kind == "labelled":
        data: dict[str, Any] = _labelled(line, fields, column, errors)
    elif kind == "pairs":
        data = _pair(line, fields, column, errors)
    else:
        data = _instruction(line, fields, column, errors)
    row_id = _row_id(line, fields, seen)
    if isinstance(row_id, LineError):
        errors.append(row_id)
    if errors:
        yield from errors
    else:
        yield Row(line, {"id": str(row_id), **data})


def _labelled(
    line: int, fields: Fields, column: str | None, errors: list[LineError]
) -> dict[str, Any]:
    prompt = _prompt_field(fields, column)
    if conversations.has_messages(fields, column):
        data: dict[str, Any] = conversations.labelled(line, fields, prompt, column, errors)
    else:
        wanted = {prompt: "instruction", "chosen": "chosen", "rejected": "rejected"}
        data = _texts(line, fields, wanted, errors)
    if not errors and data["chosen"] == data["rejected"]:
        errors.append(LineError(line, "rejected", "the same as chosen"))
    return data | _optional_text(line, fields, "subset", errors)


def _instruction(
    line: int, fields: Fields, column: str | None, errors: list[LineError]
) -> dict[str, Any]:
    given = conversations.field_of(fields, column)
    flags: dict[str, Any] = {}
    if given is None:
        data: dict[str, Any] = _texts(
            line, fields, {_prompt_field(fields, column): "instruction"}, errors
        )
    else:
        data, flags = conversations.conversation(line, given, fields[given], errors)
    for name in ("language", "reference"):
        data |= _optional_text(line, fields, name, errors)
    for name in conversations.FLAGS:
        value = fields.get(name, flags.get(name))
        if isinstance(value, str):  # a CSV has no other way to say it
            value = {"true": True, "false": False, "": None}.get(value.strip().lower(), value)
        if isinstance(value, bool):
            data[name] = value
        elif value is not None:
            errors.append(LineError(line, name, "neither true nor false"))
    return data


def _pair(line: int, fields: Fields, column: str | None, errors: list[LineError]) -> dict[str, Any]:
    responses = {"response_a": "response_a", "response_b": "response_b"}
    given = conversations.field_of(fields, column)
    if given is None:
        wanted = {_prompt_field(fields, column): "instruction", **responses}
        return _texts(line, fields, wanted, errors)
    messages = conversations.conversation(line, given, fields[given], errors)[0].get("messages", [])
    if messages and messages[-1]["role"] != "user":
        errors.append(LineError(line, given, "the last message is not the user's"))
    data = _texts(line, fields, responses, errors)
    if errors:
        return {}
    return {"instruction": messages[-1]["content"], "context": messages[:-1], **data}


def _prompt_field(fields: Fields, column: str | None) -> str:
    if column is not None:
        return column
    return "prompt" if "prompt" in fields and "instruction" not in fields else "instruction"


def _texts(
    line: int, fields: Fields, wanted: dict[str, str], errors: list[LineError]
) -> dict[str, Any]:
    """Fields that must hold text, under their names in a dataset row."""
    data: dict[str, Any] = {}
    for field, name in wanted.items():
        found = fields.get(field)
        problem = _text_problem(found) if field in fields else "missing" + _meant(name, fields)
        if problem:
            errors.append(LineError(line, field, problem))
        else:
            data[name] = str(found)
    return data


def _meant(name: str, fields: Fields) -> str:
    """What to do about a missing instruction, if another field is called as those often are."""
    near = [one for one in _LIKELY if _text_problem(fields.get(one)) is None]
    if name != "instruction" or not near:
        return ""
    return f"; if it is in {near[0]!r}: column={near[0]} (--column {near[0]})"


def _optional_text(line: int, fields: Fields, name: str, errors: list[LineError]) -> dict[str, str]:
    value = fields.get(name)
    if value in (None, ""):
        return {}
    if problem := _text_problem(value):
        errors.append(LineError(line, name, problem))
    return {name: str(value)}


def _row_id(line: int, fields: Fields, seen: Seen) -> str | LineError:
    """The row's own id, or one from its line; an id must not occur twice.

    WildChat's `conversation_hash` may: the same conversation was had again, and gets its line
    behind its hash. Ids of rows with other errors are taken all the same.
    """
    given: Any = fields.get("id")
    hashed = fields.get("conversation_hash")
    if given in (None, "") and isinstance(hashed, str) and hashed:
        given = hashed
        if len(hashed) <= MAX_ID_CHARS and seen.claim(hashed, line) != line:
            given = f"{hashed}.{line}"
    if given is None or given == "":
        given = f"r{line}"
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    problem = _text_problem(given)
    if problem is None and len(given) > MAX_ID_CHARS:
        problem = f"longer than {MAX_ID_CHARS} characters"
    if problem:
        return LineError(line, "id", problem)
    first = seen.claim(given, line)
    if first != line:
        return LineError(line, "id", f"{given!r} is already the id of line {first}")
    return str(given)


def _text_problem(value: Any) -> str | None:
    if not isinstance(value, str):
        return "not a string"
    if not value.strip():
        return "empty"
    if "\0" in value:
        return "contains a NUL character"
    return None
