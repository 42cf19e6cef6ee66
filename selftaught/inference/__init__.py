"""One way to ask any model: vLLM and other OpenAI-compatible endpoints, or transformers here."""

from selftaught.inference.factory import close_engines, open_engine
from selftaught.inference.protocol import (
    Completion,
    Engine,
    EngineRefused,
    EngineUnavailable,
    InferenceError,
    ModelLoadError,
    Request,
    Sampling,
)

__all__ = [
    "Completion",
    "Engine",
    "EngineRefused",
    "EngineUnavailable",
    "InferenceError",
    "ModelLoadError",
    "Request",
    "Sampling",
    "close_engines",
    "open_engine",
]
