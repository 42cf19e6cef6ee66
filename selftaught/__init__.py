"""selftaught: turn unlabelled instructions into a judge (Self-Taught Evaluator as a service).

`Client`, `AsyncClient` and their errors are here for users; they are loaded when they are asked
for, so that services do not pay for them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftaught.client import ApiError, AsyncClient, Client, JobFailed

__version__ = "0.1.0"
__all__ = ["ApiError", "AsyncClient", "Client", "JobFailed"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from selftaught import client

    return getattr(client, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
