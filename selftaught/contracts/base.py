"""What every contract shares: states, problems, pages."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def example(**fields: Any) -> ConfigDict:
    """For `model_config`: an example of the whole, for the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


def _is_name(value: str) -> str:
    if re.fullmatch(_NAME.strip("^$"), value) is None:
        raise PydanticCustomError(
            "string_pattern_mismatch",
            "not a name: lower case letters, digits and . _ -, at most 64, the first a letter or "
            "a digit, e.g. my-judge",
        )
    return value


Name = Annotated[str, AfterValidator(_is_name), Field(json_schema_extra={"pattern": _NAME})]
"""What users call models, recipes, templates and projects."""


class Contract(BaseModel):
    """Unknown fields are errors: a misspelt setting must not be ignored. Nor is anything taken for
    what it is not: "3" and true are no integers. (Queries are all text, and not strict.)"""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, value: Any) -> Any:
        """18.0 is an integer to JSON Schema, as it is to those who have one kind of numbers."""
        if not isinstance(value, dict):
            return value
        return {
            name: int(one) if isinstance(one, float) and one.is_integer() else one
            for name, one in value.items()
        }


class State(StrEnum):
    """States of jobs, iterations, stages and chunks (each uses the ones that fit it)."""

    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Problem(BaseModel):
    """RFC 9457 problem details, for responses and for failed jobs alike."""

    type: str = Field("about:blank", description="Always this: `code` says what it is.")
    title: str = Field(description="The status in words; of a failed job: what failed.")
    status: int | None = Field(None, description="HTTP status; none of a failed job.")
    detail: str | None = Field(None, description="What is wrong with this one, for people.")
    code: str = Field(description="What it is, for programs.")
    param: str | None = Field(None, description="The field, parameter or header that is wrong.")
    request_id: str | None = Field(None, description="As in X-Request-ID and in the logs.")
    fault: Literal["user", "system"] | None = Field(None, description="Whose failure a job's is.")
    errors: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Everything that is wrong: {field, message, type}, or {line, field, message} "
        "of an upload.",
    )


T = TypeVar("T")


def _page(schema: dict[str, Any], page: type[Page[Any]]) -> None:
    """A page's example is its item's, and its description the one of all pages."""
    (item,) = get_args(page.model_fields["data"].annotation)
    schema["description"] = Page.__doc__
    if isinstance(item, type) and issubclass(item, BaseModel):
        found = item.model_json_schema().get("examples", [])
        schema["examples"] = [{"data": [one], "has_more": False} for one in found[:1]]


class Page(BaseModel, Generic[T]):
    """A cursor page: pass the last item's id (or seq) as `after` to get the next one."""

    model_config = ConfigDict(json_schema_extra=_page)

    data: list[T] = Field(description="In the order that the route names.")
    has_more: bool = Field(description="Another page follows.")
