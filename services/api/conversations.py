"""Conversations in uploaded rows: chat messages, WildChat's, ShareGPT's, and TRL's preferences."""

from __future__ import annotations

from typing import Any

from selftaught.judging import Message, in_context
from services.api.records import Fields, LineError

FLAGS = ("toxic", "redacted")
_FIELDS = ("messages", "conversation", "conversations")
"""Fields that hold a whole conversation: chat messages, WildChat, ShareGPT."""
_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
RESPONSES = ("chosen", "rejected")


def field_of(fields: Fields, column: str | None) -> str | None:
    """The field that holds a conversation; None if the instruction stands in one of its own.

    `prompt`, or the named column, may be one, too: TRL's prompts are messages.
    """
    if column is not None:
        return column if isinstance(fields.get(column), list) else None
    if isinstance(fields.get("prompt"), list) and fields.get("instruction") is None:
        return "prompt"
    given = next((name for name in _FIELDS if fields.get(name) is not None), None)
    named = (fields.get("instruction"), fields.get("prompt"))
    return given if named == (None, None) else None


def conversation(
    line: int, field: str, value: Any, errors: list[LineError]
) -> tuple[dict[str, Any], dict[str, bool]]:
    """`instruction` and `messages`, and the flags that any message has."""
    messages = turns(line, field, value, errors)
    if messages is None:
        return {}, {}
    first = next((m["content"] for m in messages if m["role"] == "user"), "")
    if not first.strip():
        errors.append(LineError(line, field, "the first user message is missing or empty"))
        return {}, {}
    flags = {
        name: any(message.get(name) is True for message in value)
        for name in FLAGS
        if any(isinstance(message.get(name), bool) for message in value)
    }
    return {"instruction": first, "messages": messages}, flags


def turns(line: int, field: str, value: Any, errors: list[LineError]) -> list[Message] | None:
    """Messages as [{role, content}]; None with an error if they are none."""
    problem = None
    messages: list[Message] = []
    if not isinstance(value, list) or not value:
        problem = "not a list of messages"
        value = ()
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            problem = f"message {number} is not an object"
            break
        role = _ROLES.get(str(message.get("role", message.get("from"))))
        content = message.get("content", message.get("value"))
        if role is None:
            problem = f"message {number} has no known role: user, assistant or system"
            break
        if not isinstance(content, str) or "\0" in content:
            problem = f"message {number} has no text as its content"
            break
        messages.append({"role": role, "content": content})
    if problem is not None:
        errors.append(LineError(line, field, problem))
        return None
    return messages


def has_messages(fields: Fields, column: str | None) -> bool:
    """Are the responses of a labelled row, or what they answer, messages?"""
    lists = any(isinstance(fields.get(name), list) for name in RESPONSES)
    return lists or field_of(fields, column) is not None


def labelled(
    line: int, fields: Fields, prompt: str, column: str | None, errors: list[LineError]
) -> dict[str, str]:
    """Instruction, chosen and rejected of a row that has messages, as TRL's preferences do.

    A response is the last message of its list; what stands before it is the prompt, where the row
    has none of its own, or must be the same. A conversation stands before its last message in the
    instruction, as /judge writes it. `prompt`: the field of an instruction that is text.
    """
    known = len(errors)
    given = field_of(fields, column)
    before: list[Message] | None = None
    if given is not None:
        before = turns(line, given, fields[given], errors)
    elif isinstance(text := fields.get(prompt), str):
        before = [{"role": "user", "content": text}]
    data: dict[str, str] = {}
    for name in RESPONSES:
        value = fields.get(name)
        if isinstance(value, list):
            *context, last = turns(line, name, value, errors) or [{"role": "", "content": ""}]
            if len(errors) > known:
                continue
            if last["role"] != "assistant":
                errors.append(LineError(line, name, "the last message is not the assistant's"))
            elif context and before is not None and context != before:
                message = f"begins with another conversation than {given or prompt}"
                if given is None and prompt not in fields:
                    message = "begins with another conversation than chosen"
                errors.append(LineError(line, name, message))
            before = before or context or None
            value = last["content"]
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            errors.append(LineError(line, name, "missing, empty, or no text"))
        else:
            data[name] = value
    if len(errors) > known:
        return {}
    if before is None or before[-1]["role"] != "user" or not before[-1]["content"].strip():
        errors.append(LineError(line, given or prompt, "missing, or its last turn is no user's"))
        return {}
    *earlier, asked = before
    return {"instruction": in_context(asked["content"], earlier), **data}
