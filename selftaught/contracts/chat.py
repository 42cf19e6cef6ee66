"""Contracts of the routes that speak OpenAI's chat completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import core_schema

from selftaught.contracts.base import Contract, example
from selftaught.contracts.judging import LONGEST_CONVERSATION, Named
from selftaught.contracts.recipe import SamplingSettings

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto", "none"),
}
"""Fields of OpenAI's that are not supported, with the values that ask for nothing."""
_ABOUT = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
"""Fields that say who asks; what is answered does not depend on them."""
_EMPTY: tuple[Any, ...] = ([], {})
_NULL = {"type": "null"}

Text = Annotated[str, Field(max_length=LONGEST_CONVERSATION)]


class _Lenient(Contract):
    """Clients send null for what they do not use, and null or something empty for what is not
    supported: that is no field at all."""

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: one
            for name, one in value.items()
            if one is not None and (name in cls.model_fields or one not in _EMPTY)
        }

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Every field that need not be given may be null."""
        found = handler(schema)
        fields = handler.resolve_ref_schema(found)["properties"]
        for name, field in cls.model_fields.items():
            if not field.is_required():
                fields[name] = _nullable(fields[name])
        return found


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        key: schema[key] for key in ("title", "description", "default") if key in schema
    }
    types = {key: one for key, one in schema.items() if key not in told}
    either = types.pop("anyOf") if set(types) == {"anyOf"} else [types]
    return {"anyOf": [*(one for one in either if one != _NULL), _NULL], **told}


class TextPart(Contract):
    """A piece of a message."""

    type: Literal["text"] = Field(description="Only text.")
    text: Text = Field(description="What is said.")


class ChatTurn(_Lenient):
    """One message, which the model is given as it is."""

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="`developer` is `system`."
    )
    content: Text | Annotated[list[TextPart], Field(max_length=100)] = Field(
        "", description="A text, or parts that are put together."
    )

    @property
    def text(self) -> str:
        """The whole content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)

    def message(self) -> dict[str, str]:
        """As engines take it."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.text}


class StreamOptions(_Lenient):
    """How a stream is sent."""

    include_usage: bool = Field(False, description="A last chunk with the tokens that were used.")
    include_obfuscation: bool = Field(False, description="Only false has an effect here: none.")


class ChatIn(_Lenient):
    """POST chat/completions: a version answers a conversation."""

    model_config = example(
        model="tour",
        messages=[{"role": "user", "content": "Swap the first and the last letter: m f q"}],
        temperature=0,
        max_tokens=64,
    )

    model: Named = Field(description="name (its `latest`), name:alias or name:number.")
    messages: list[ChatTurn] = Field(
        min_length=1,
        max_length=1000,
        description=f"Together at most {LONGEST_CONVERSATION:,} characters.",
    )
    temperature: float = Field(1.0, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Only the likeliest tokens that have this share together."
    )
    top_k: int = Field(0, ge=0, description="vLLM's extension: 0 means all tokens.")
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=32768,
        description="Length limit of a choice; default: as long as the version's judgments may be.",
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, le=32768, description="The newer name of `max_tokens`."
    )
    n: int = Field(1, ge=1, le=64, description="Choices.")
    seed: int | None = Field(
        None,
        ge=-(2**63),
        le=2**63 - 1,
        description="The same seed and question to the same version: the same choices.",
    )
    stop: (
        Annotated[str, Field(min_length=1, max_length=200)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=4)]
    ) = Field(default_factory=list, description="A choice ends before one of these texts.")
    stream: bool = Field(False, description="Answer with chunks, as the model writes.")
    stream_options: StreamOptions | None = Field(None, description="Only with `stream`.")

    @model_validator(mode="before")
    @classmethod
    def _only_what_asks_for_something(cls, value: Any) -> Any:
        """What is left of the unsupported fields is refused by its name."""
        if not isinstance(value, dict):
            return value
        return {
            name: one
            for name, one in value.items()
            if name not in _ABOUT and not (name in _NEUTRAL and one in _NEUTRAL[name])
        }

    @model_validator(mode="after")
    def _fits(self) -> Self:
        characters = sum(len(message.text) for message in self.messages)
        if characters > LONGEST_CONVERSATION:
            raise ValueError(
                f"messages: {characters:,} characters together; "
                f"at most {LONGEST_CONVERSATION:,} are allowed"
            )
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only with stream")
        return self

    @property
    def stops(self) -> list[str]:
        """Texts before which a choice ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    def sampling(self, longest: int) -> SamplingSettings:
        """How it is sampled; `longest`: tokens of a choice where the request says nothing."""
        return SamplingSettings(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_completion_tokens or self.max_tokens or longest,
        )


class ChatAnswer(BaseModel):
    """What the model wrote."""

    role: Literal["assistant"] = Field("assistant", description="Who says it.")
    content: str = Field(description="What is said.")
    refusal: None = Field(None, description="Always null.")


class ChatChoice(BaseModel):
    """One of `n` answers."""

    index: int = Field(description="From 0.")
    message: ChatAnswer = Field(description="The answer.")
    logprobs: None = Field(None, description="Always null.")
    finish_reason: Literal["stop", "length"] = Field(
        description="`stop`: the model ended it, or came to a text of `stop`. `length`: cut off."
    )


class ChatUsage(BaseModel):
    """Tokens, by the model's own count."""

    prompt_tokens: int = Field(description="Of the messages, once.")
    completion_tokens: int = Field(description="Of all choices, also of what `stop` cut off.")
    total_tokens: int = Field(description="Both together.")


class ChatOut(BaseModel):
    """A chat completion."""

    model_config = example(
        id="chatcmpl_019ac5a1c3d08f2a5b7c9d0e",
        object="chat.completion",
        created=1795777200,
        model="tour:1",
        system_fingerprint="fp_1f0c6b9a2e7d",
        choices=[
            {
                "index": 0,
                "message": {"role": "assistant", "content": "q f m", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        usage={"prompt_tokens": 21, "completion_tokens": 4, "total_tokens": 25},
    )

    id: str = Field(description="This answer's own.")
    object: Literal["chat.completion"] = Field("chat.completion", description="What this is.")
    created: int = Field(description="Seconds since 1970.")
    model: str = Field(description="Exact version that answered, name:number.")
    system_fingerprint: str = Field(description="Of the version's weights: of their sha256.")
    choices: list[ChatChoice] = Field(description="`n` of them.")
    usage: ChatUsage = Field(description="What it took.")


class ChatModel(BaseModel):
    """A model that can be asked."""

    model_config = example(id="tour", object="model", created=1795777200, owned_by="selftaught")

    id: str = Field(description="What `model` may be.")
    object: Literal["model"] = Field("model", description="What this is.")
    created: int = Field(description="When the version that it means was made: seconds since 1970.")
    owned_by: str = Field("selftaught", description="Always this.")


class ChatModels(BaseModel):
    """Models that have a `latest` version."""

    model_config = example(
        object="list",
        data=[{"id": "tour", "object": "model", "created": 1795777200, "owned_by": "selftaught"}],
    )

    object: Literal["list"] = Field("list", description="What this is.")
    data: list[ChatModel] = Field(description="By name.")


class ChatErrorBody(BaseModel):
    """What is wrong."""

    message: str = Field(description="For people.")
    type: str = Field(description="The kind: invalid_request_error, rate_limit_error ..")
    param: str | None = Field(None, description="The field that is wrong.")
    code: str | None = Field(None, description="What it is, for programs.")


class ChatError(BaseModel):
    """An error, as OpenAI's clients read it."""

    model_config = example(
        error={
            "message": "there is no model 'none'",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    )

    error: ChatErrorBody = Field(description="What is wrong.")
