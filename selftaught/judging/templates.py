"""Prompt templates as data: named YAML, hashed, rendered to chat messages in a single pass.

What a model is asked decides what its verdicts mean, so the hash of a template's content goes into
every model version and verdict. Placeholders are filled in one pass over the template's own text:
braces, or whole placeholders, inside a response stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from itertools import permutations
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from selftaught.contracts import Contract
from selftaught.hashing import canonical_sha256

Message = dict[str, str]
"""One chat message: `role` and `content`."""

Order = Literal["AB", "BA"]
ORDERS: tuple[Order, Order] = ("AB", "BA")

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class _Prompt(Contract):
    """What both kinds share; frozen, because a template is its hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    system: str | None = Field(None, description="System message; no placeholders are filled in.")
    user: str = Field(description="User message with {placeholders}.")

    @property
    def sha256(self) -> str:
        """Hash of the content without the name: renaming a template does not change it."""
        return canonical_sha256(self.model_dump(mode="json", exclude={"name"}))

    def _messages(self, values: Mapping[str, str]) -> list[Message]:
        filled = _PLACEHOLDER.sub(lambda match: values[match.group(1)], self.user)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": filled}]


class JudgeTemplate(_Prompt):
    """Asks which of two responses is better. `verdicts` maps A, B and maybe tie to their marks."""

    kind: Literal["judge"] = "judge"
    verdicts: dict[Literal["A", "B", "tie"], str]

    @model_validator(mode="after")
    def _check(self) -> JudgeTemplate:
        _need(self.user, {"instruction", "response_a", "response_b"})
        if not {"A", "B"} <= set(self.verdicts):
            raise ValueError("verdicts: A and B are needed")
        marks = list(self.verdicts.values())
        if any(not mark.strip() for mark in marks):
            raise ValueError("verdicts: a mark is empty")
        if any(one in other for one, other in permutations(marks, 2)):
            raise ValueError("verdicts: one mark contains another")
        return self

    def render(self, instruction: str, response_a: str, response_b: str) -> list[Message]:
        """Chat messages that show the responses in this order."""
        return self._messages(
            {"instruction": instruction, "response_a": response_a, "response_b": response_b}
        )

    def show(self, pair: Mapping[str, Any], order: Order) -> list[Message]:
        """Chat messages for a row {instruction, chosen, rejected}; in AB the chosen one is A."""
        first, second = pair["chosen"], pair["rejected"]
        if order == "BA":
            first, second = second, first
        return self.render(pair["instruction"], first, second)


class BestOfFourTemplate(_Prompt):
    """Asks which of four responses is best, by [[A]] to [[D]]; RewardBench 2 asks so."""

    kind: Literal["best-of-four"] = "best-of-four"

    @model_validator(mode="after")
    def _check(self) -> BestOfFourTemplate:
        _need(self.user, {"instruction", *(f"response_{letter}" for letter in "abcd")})
        return self

    def render(self, instruction: str, responses: Sequence[str]) -> list[Message]:
        """Chat messages that show four responses in this order."""
        named = zip("abcd", responses, strict=True)
        shown = {f"response_{letter}": response for letter, response in named}
        return self._messages({"instruction": instruction, **shown})


class RatingTemplate(_Prompt):
    """Asks for a number from 1 to 10, at the reply's end; RewardBench 2 rates its ties so."""

    kind: Literal["rating"] = "rating"

    @model_validator(mode="after")
    def _check(self) -> RatingTemplate:
        _need(self.user, {"instruction", "response"})
        return self

    def render(self, instruction: str, response: str) -> list[Message]:
        """Chat messages that show one response."""
        return self._messages({"instruction": instruction, "response": response})


class ModifyTemplate(_Prompt):
    """Asks for an instruction like a given one, with another answer.

    The new instruction stands between the marks `start` and `end`, or is the whole reply if the
    template has no marks.
    """

    kind: Literal["modify"] = "modify"
    start: str | None = Field(None, min_length=1)
    end: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> ModifyTemplate:
        _need(self.user, {"instruction"})
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end: both or neither")
        return self

    def render(self, instruction: str) -> list[Message]:
        """Chat messages that ask for a modification of this instruction."""
        return self._messages({"instruction": instruction})

    def read_instruction(self, reply: str) -> str | None:
        """The modified instruction in a reply; None unless each mark stands there exactly once."""
        if self.start is None or self.end is None:
            return reply.strip() or None
        before, start, rest = reply.partition(self.start)
        inside, end, after = rest.partition(self.end)
        if not start or not end:
            return None
        if any(mark in part for mark in (self.start, self.end) for part in (before, inside, after)):
            return None
        return inside.strip() or None


Template = JudgeTemplate | ModifyTemplate | BestOfFourTemplate | RatingTemplate
_TEMPLATE: TypeAdapter[Template] = TypeAdapter(Annotated[Template, Field(discriminator="kind")])


def parse_template(data: Mapping[str, Any]) -> Template:
    """A template from untrusted data (an upload, a YAML file); pydantic ValidationError if bad."""
    return _TEMPLATE.validate_python(dict(data))


def template_names() -> list[str]:
    """Names of the shipped templates."""
    folder = resources.files(__package__) / "templates"
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".yaml"))


@lru_cache
def load_template(name: str) -> Template:
    """A shipped template by name; KeyError if there is none."""
    if name not in template_names():
        raise KeyError(f"no template named {name!r}; there are {', '.join(template_names())}")
    text = (resources.files(__package__) / "templates" / f"{name}.yaml").read_text("utf-8")
    template = parse_template(yaml.safe_load(text))
    if template.name != name:
        raise ValueError(f"{name}.yaml calls itself {template.name!r}")
    return template


def load_judge_template(name: str) -> JudgeTemplate:
    """A shipped judge template; KeyError if the name is unknown or of another kind."""
    template = load_template(name)
    if not isinstance(template, JudgeTemplate):
        raise KeyError(f"template {name!r} is not a judge template")
    return template


def load_modify_template(name: str) -> ModifyTemplate:
    """A shipped modify template; KeyError if the name is unknown or of another kind."""
    template = load_template(name)
    if not isinstance(template, ModifyTemplate):
        raise KeyError(f"template {name!r} is not a modify template")
    return template


def _need(user: str, wanted: set[str]) -> None:
    found = set(_PLACEHOLDER.findall(user))
    if found != wanted:
        names = ", ".join(f"{{{name}}}" for name in sorted(wanted))
        raise ValueError(f"user: must use exactly the placeholders {names}")
