"""One way to ask any model: vLLM and other OpenAI-compatible endpoints, or transformers here."""

from selftaught.inference.factory import close_engines, open_engine
from selftaught.inference.protocol import (
    Ask,
    Completion,
    Dialogue,
    Engine,
    EngineFailed,
    EngineRefused,
    EngineUnavailable,
    Hear,
    InferenceError,
    ModelLoadError,
    Request,
    Sampling,
    in_rounds,
)

__all__ = [
    "Ask",
    "Completion",
    "Dialogue",
    "Engine",
    "EngineFailed",
    "EngineRefused",
    "EngineUnavailable",
    "Hear",
    "InferenceError",
    "ModelLoadError",
    "Request",
    "Sampling",
    "close_engines",
    "in_rounds",
    "open_engine",
]
