"""Prompt templates as data: named YAML, hashed, rendered to chat messages in a single pass.

What a model is asked decides what its verdicts mean, so the hash of a template's content goes into
every model version and verdict. Placeholders are filled in one pass over the template's own text:
braces, or whole placeholders, inside a response stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from itertools import permutations
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from selftaught.contracts import Contract, Name
from selftaught.hashing import canonical_sha256
from selftaught.judging.fencing import fence, neutralise

Message = dict[str, str]
"""One chat message: `role` and `content`."""

Order = Literal["AB", "BA"]
ORDERS: tuple[Order, Order] = ("AB", "BA")

LENGTHS = ("sentence", "paragraph", "page", "longer")
"""Expected lengths of a response, as labels."""

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

_BORDER = re.compile(r"\[[^\[\]{}\n]{3,}\]")
"""A line such as [The End of Assistant A's Answer] in a template's own text."""

_WORDS = re.compile(r"[\w\s]+")

_LABEL_LINE = re.compile(r"^[ \t]*(category|complexity|length):[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)


def in_context(instruction: str, context: Sequence[Message] | None) -> str:
    """An instruction as text, behind the conversation before it if there is any."""
    if not context:
        return instruction
    turns = "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in context)
    return f"The conversation so far:\n\n{turns}\n\nThe user's latest message:\n\n{instruction}"


class _Prompt(Contract):
    """What all kinds share; frozen, because a template is its hash."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)  # lists as tuples

    name: Name
    system: str | None = Field(None, description="System message; no placeholders are filled in.")
    user: str = Field(description="User message with {placeholders}.")

    @cached_property
    def sha256(self) -> str:
        """Hash of the content without the name: renaming a template does not change it."""
        return canonical_sha256(self.model_dump(mode="json", exclude={"name"}))

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """What this template means something by: its own [borders], and a judge's verdicts."""
        return tuple(dict.fromkeys(_BORDER.findall(self.user)))

    def _fenced(self, values: Mapping[str, str], key: bytes) -> list[Message]:
        """:meth:`fill` with values that are data: see :mod:`selftaught.judging.fencing`."""
        shown = {name: neutralise(value, self.marks) for name, value in values.items()}
        if "{fence}" in self.user:
            shown["fence"] = fence(shown.values(), key)
        return self.fill(shown)

    def fill(self, values: Mapping[str, str]) -> list[Message]:
        """Chat messages with these values as they are, one for each placeholder."""
        filled = _PLACEHOLDER.sub(lambda match: values[match.group(1)], self.user)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": filled}]


class JudgeTemplate(_Prompt):
    """Asks which of two responses is better. `verdicts` maps A, B and maybe tie to their marks.

    What it shows is data: marks of verdicts, the template's own [borders] and control tokens of
    chat models are broken by a blank, and {fence} is a word that stands in none of the texts.
    """

    kind: Literal["judge"] = "judge"
    verdicts: dict[Literal["A", "B", "tie"], str]

    @model_validator(mode="after")
    def _check(self) -> JudgeTemplate:
        _need(self.user, {"instruction", "response_a", "response_b"}, {"fence"})
        if not {"A", "B"} <= set(self.verdicts):
            raise ValueError("verdicts: A and B are needed")
        marks = list(self.verdicts.values())
        if any(not mark.strip() for mark in marks):
            raise ValueError("verdicts: a mark is empty")
        if any(one in other for one, other in permutations(marks, 2)):
            raise ValueError("verdicts: one mark contains another")
        return self

    @property
    def verdict_marks(self) -> tuple[str, ...]:
        """The mark of each verdict, in the order of `verdicts`."""
        return tuple(self.verdicts.values())

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """Borders and verdicts; no verdict of words only ("Answer A"), which anybody may write."""
        verdicts = (mark for mark in self.verdicts.values() if not _WORDS.fullmatch(mark))
        return (*super().marks, *verdicts)

    def render(
        self, instruction: str, response_a: str, response_b: str, key: bytes = b""
    ) -> list[Message]:
        """Chat messages that show the responses in this order.

        `key`: of the fence, if the template has one. Without a key it follows from the texts alone,
        so that training rows can be made again anywhere; serving gives the deployment's.
        """
        return self._fenced(
            {"instruction": instruction, "response_a": response_a, "response_b": response_b}, key
        )

    def show(self, pair: Mapping[str, Any], order: Order, key: bytes = b"") -> list[Message]:
        """Chat messages for a row {instruction, context?, chosen, rejected}; in AB chosen is A."""
        first, second = pair["chosen"], pair["rejected"]
        if order == "BA":
            first, second = second, first
        instruction = in_context(pair["instruction"], pair.get("context"))
        return self.render(instruction, first, second, key)


@dataclass(frozen=True)
class Modification:
    """What a reply to a modify template holds; `response` only if the template asks for one."""

    instruction: str
    response: str | None = None


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
        return self.fill({"instruction": instruction, **shown})


class RatingTemplate(_Prompt):
    """Asks for a number from 1 to 10, at the reply's end; RewardBench 2 rates its ties so."""

    kind: Literal["rating"] = "rating"

    @model_validator(mode="after")
    def _check(self) -> RatingTemplate:
        _need(self.user, {"instruction", "response"})
        return self

    def render(self, instruction: str, response: str) -> list[Message]:
        """Chat messages that show one response."""
        return self.fill({"instruction": instruction, "response": response})


class ScoreTemplate(_Prompt):
    """Asks for a number from 0 to 10, on the reply's last line."""

    kind: Literal["score"] = "score"

    @model_validator(mode="after")
    def _check(self) -> ScoreTemplate:
        _need(self.user, {"instruction", "response"}, {"fence"})
        return self

    def render(self, instruction: str, response: str, key: bytes = b"") -> list[Message]:
        """Chat messages that show one response; it is data as in a JudgeTemplate."""
        return self._fenced({"instruction": instruction, "response": response}, key)

    def read(self, reply: str, finished: bool = True) -> float | None:
        """The number; None unless the last line that is not blank is one from 0 to 10, and nothing
        else, in a reply that was not cut off (`finished`)."""
        last_line = reply.rstrip().rpartition("\n")[2].strip()
        if not finished or not re.fullmatch(r"\d{1,2}(\.\d{1,2})?", last_line, re.ASCII):
            return None
        return float(last_line) if float(last_line) <= 10 else None


class ModifyTemplate(_Prompt):
    """Asks for an instruction like a given one, with another answer.

    The new instruction stands between the marks `start` and `end`, or is the whole reply if the
    template has no marks. With `response_end` the template asks for a response to it in the same
    call, between `end` and `response_end`, and may show the {response} to the given instruction.
    """

    kind: Literal["modify"] = "modify"
    start: str | None = Field(None, min_length=1)
    end: str | None = Field(None, min_length=1)
    response_end: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> ModifyTemplate:
        shown = {"instruction"}
        if self.one_call and "{response}" in self.user:
            shown.add("response")
        _need(self.user, shown)
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end: both or neither")
        if self.one_call and self.start is None:
            raise ValueError("response_end: needs start and end")
        return self

    @property
    def one_call(self) -> bool:
        """One reply holds the modified instruction and a response to it, as in the paper."""
        return self.response_end is not None

    @property
    def _marks(self) -> list[str]:
        return [mark for mark in (self.start, self.end, self.response_end) if mark is not None]

    def render(self, instruction: str, response: str = "") -> list[Message]:
        """Chat messages that ask for a modification of this instruction."""
        return self.fill({"instruction": instruction, "response": response})

    def read(self, reply: str) -> Modification | None:
        """The modification in a reply; None unless each mark stands there exactly once, in order.

        None also where a part between two marks is blank.
        """
        if not self._marks:
            return Modification(reply.strip()) if reply.strip() else None
        parts, rest = [], reply
        for mark in self._marks:
            before, found, rest = rest.partition(mark)
            if not found:
                return None
            parts.append(before)
        if any(mark in part for mark in self._marks for part in (*parts, rest)):
            return None
        said = [part.strip() for part in parts[1:]]
        return Modification(*said) if all(said) else None


@dataclass(frozen=True)
class Label:
    """What an instruction is: `complexity` from 1 to 5, `length` one of LENGTHS."""

    category: str
    complexity: int
    length: str


class LabelTemplate(_Prompt):
    """Asks which of `categories` an instruction belongs to, how complex it is, how long its answer.

    A reply is read strictly: each of the lines `Category: ..`, `Complexity: 1..5` and `Length: ..`
    (one of LENGTHS) stands there exactly once. Upper or lower case makes no difference.
    """

    kind: Literal["label"] = "label"
    categories: tuple[str, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> LabelTemplate:
        _need(self.user, {"instruction"})
        if any(name != name.strip().casefold() or not name for name in self.categories):
            raise ValueError("categories: lower case, without blanks at the ends")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("categories: one stands there twice")
        return self

    def render(self, instruction: str) -> list[Message]:
        """Chat messages that ask for the labels of this instruction."""
        return self.fill({"instruction": instruction})

    def read(self, reply: str) -> Label | None:
        """The label in a reply; None if a line is missing, stands there twice or says nonsense."""
        found: dict[str, str] = {}
        for name, value in _LABEL_LINE.findall(reply.casefold()):
            if name in found:
                return None
            found[name] = value
        category, length = found.get("category"), found.get("length")
        complexity = found.get("complexity", "")
        if category not in self.categories or length not in LENGTHS:
            return None
        if complexity not in {"1", "2", "3", "4", "5"}:
            return None
        return Label(category, int(complexity), length)


Template = (
    JudgeTemplate
    | ModifyTemplate
    | LabelTemplate
    | BestOfFourTemplate
    | RatingTemplate
    | ScoreTemplate
)
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


def load_label_template(name: str) -> LabelTemplate:
    """A shipped label template; KeyError if the name is unknown or of another kind."""
    template = load_template(name)
    if not isinstance(template, LabelTemplate):
        raise KeyError(f"template {name!r} is not a label template")
    return template


def _need(user: str, wanted: set[str], allowed: set[str] | None = None) -> None:
    found = set(_PLACEHOLDER.findall(user))
    if found - (allowed or set()) != wanted:
        names = ", ".join(f"{{{name}}}" for name in sorted(wanted))
        may = "".join(f"; may use {{{name}}}" for name in sorted(allowed or ()))
        raise ValueError(f"user: must use exactly the placeholders {names}{may}")
