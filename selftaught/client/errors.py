"""What goes wrong: a refusal of the gateway, or work that ended without success."""

from __future__ import annotations

from typing import Any

from selftaught.contracts import Problem


class ApiError(Exception):
    """The gateway refused a call, or what answered is no gateway.

    `status` is the answer's HTTP status, `problem` its body (RFC 9457), and `retry_after` the
    seconds after which it may be tried again, where the answer says so. Programs read `code`,
    people `detail`.
    """

    def __init__(
        self, status: int, problem: dict[str, Any], retry_after: float | None = None
    ) -> None:
        super().__init__(status, problem, retry_after)
        self.status, self.problem, self.retry_after = status, problem, retry_after

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"

    @property
    def code(self) -> str:
        """What it is, for programs: `not_found`, `invalid_recipe`, ..."""
        return str(self.problem.get("code"))

    @property
    def detail(self) -> str:
        """What is wrong, for people."""
        return str(self.problem.get("detail"))

    @property
    def param(self) -> str | None:
        """The field, parameter or header that is wrong, if it is one."""
        return self.problem.get("param")

    @property
    def errors(self) -> list[dict[str, Any]]:
        """All that is wrong: {field, message, type}, or {line, field, message} of a file."""
        return self.problem.get("errors") or []

    @property
    def request_id(self) -> str | None:
        """Under which the gateway's logs have the call."""
        return self.problem.get("request_id")


class JobFailed(Exception):
    """Work that was waited for ended without success: `state` is failed or cancelled.

    `problem` says why, of work that failed.
    """

    def __init__(self, id: str, state: str, problem: Problem | None) -> None:
        super().__init__(id, state, problem)
        self.id, self.state, self.problem = id, state, problem

    def __str__(self) -> str:
        why = "" if self.problem is None else f": {self.problem.code}: {self.problem.detail}"
        return f"{self.id} {self.state}{why}"
