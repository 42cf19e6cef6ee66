"""Anything that can happen to a job, in any order, on the real kernel: what must always hold, does.

Hypothesis plays relay, workers, dying workers, the reaper and people, on a real Postgres.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, text

from selftaught.artifacts import resolve
from selftaught.contracts import TERMINAL, Problem, State
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Event, Iteration, Outbox, Stage
from selftaught.settings import get_settings
from selftaught.work import control, kernel, pipeline, planning, relay
from selftaught.work.kernel import Lease
from tests.work import helpers

ANY = st.integers(min_value=0, max_value=1000)
AWAY = Problem(code="away", title="Away", detail="nobody there", fault="system")
QUEUES = sorted(set(planning.QUEUES.values()))
MAY = {
    "pause": {"job_finished", "job_cancelling"},
    "resume": {"job_finished", "job_cancelling"},
    "retry": {"job_finished", "job_cancelling"},
    "cancel": {"job_finished"},
}
"""How each request may be refused; here no stage is ever without input."""


def totals(job_id: str) -> list[tuple[int, str, str, dict[str, int]]]:
    """What every stage of a job came to."""
    return [
        (number, stage.kind, stage.state, stage.counts)
        for number, of in helpers.stages(job_id).items()
        for stage in of
    ]


class Job(RuleBasedStateMachine):
    """One job. `messages`: sent and not yet delivered; `leases`: given out, some long dead."""

    expected: list[tuple[int, str, str, dict[str, int]]] = []  # noqa: RUF012 of an undisturbed job

    @initialize(
        until=st.sampled_from(["register", "pair", "judge"]),
        unseen=st.sampled_from(["finish", "fail", "let_go", "die"]),
    )
    def start(self, until: str, unseen: str) -> None:
        self.messages: list[str] = []
        self.leases: list[Lease] = []
        self.job_id = helpers.make_job()
        helpers.drain(self.job_id, until=until)
        self.applied = self.chunks(State.SUCCEEDED)
        self.send()
        waiting = helpers.ready(
            self.job_id
        )  # other messages are of what is done, and of other jobs
        self.messages = [one for one in self.messages if one in waiting]
        for chunk_id in self.messages[:2]:  # some are at work: else much of what comes is nothing
            self.claim(chunk_id)
        self.pause_unseen(0, unseen)
        self.ask("resume")

    def chunks(self, *states: State) -> set[str]:
        with transaction() as session:
            query = select(Chunk.id).where(Chunk.job_id == self.job_id, Chunk.state.in_(states))
            return set(session.scalars(query))

    @property
    def state(self) -> str:
        return helpers.job(self.job_id).state

    # ---------------------------------------------------------------- relay and messages

    @rule()
    def send(self) -> None:
        with transaction() as session:
            self.messages += [row.chunk_id for row in session.execute(relay.TAKE)]

    @rule(which=ANY, again=st.booleans())
    def deliver(self, which: int, again: bool) -> None:
        """In any order; one that stays is delivered a second time."""
        if self.messages:
            at = which % len(self.messages)
            chunk_id = self.messages[at] if again else self.messages.pop(at)
            self.claim(chunk_id)

    @rule(which=ANY)
    def work(self, which: int) -> None:
        """A message as it should go: delivered once, its result applied."""
        self.send()
        if self.messages:
            lease = self.claim(self.messages.pop(which % len(self.messages)))
            if lease is not None:
                self.finish(len(self.leases) - 1)

    @rule()
    def lose_messages(self) -> None:
        self.messages.clear()

    @rule()
    def ring_again(self) -> None:
        with transaction() as session:
            session.execute(relay.RERING, {"age": 0, "queues": QUEUES})

    # ---------------------------------------------------------------- workers

    def claim(self, chunk_id: str) -> Lease | None:
        before = helpers.chunk(chunk_id).state, self.state
        lease = kernel.claim(chunk_id, "model")
        assert (lease is not None) == (before == (State.READY, State.RUNNING))
        if lease is not None:
            self.leases.append(lease)
        return lease

    def lease(self, which: int) -> tuple[Lease, bool]:
        """One of them, and whether it still holds its chunk."""
        lease = self.leases[which % len(self.leases)]
        return lease, helpers.chunk(lease.chunk_id).lock_token == lease.token

    @precondition(lambda self: self.leases)
    @rule(which=ANY)
    def finish(self, which: int) -> None:
        lease, holds = self.lease(which)
        counts = holds and self.state in (State.RUNNING, State.PAUSING)
        result = helpers.HANDLERS[lease.kind].run(lease)
        applied = kernel.finish(lease, result, helpers.HANDLERS[lease.kind].apply)
        assert applied == counts
        if applied:
            assert lease.chunk_id not in self.applied, "applied twice"
            self.applied.add(lease.chunk_id)
        elif result.artifact is not None and lease.chunk_id not in self.applied:
            assert not resolve(result.artifact.path).exists()

    @precondition(lambda self: self.leases)
    @rule(which=ANY, retry=st.booleans(), delay=st.sampled_from([0.0, 60.0]))
    def fail(self, which: int, retry: bool, delay: float) -> None:
        lease, _ = self.lease(which)
        kernel.fail(lease, AWAY, retry=retry, delay=delay)

    @precondition(lambda self: self.leases)
    @rule(which=ANY)
    def let_go(self, which: int) -> None:
        lease, holds = self.lease(which)
        attempt = helpers.chunk(lease.chunk_id).attempt
        state = self.state
        kernel.let_go(lease)
        if holds and state in (State.RUNNING, State.PAUSING):
            assert helpers.chunk(lease.chunk_id).attempt == attempt - 1

    @precondition(lambda self: self.leases)
    @rule(which=ANY)
    def say_and_renew(self, which: int) -> None:
        lease, holds = self.lease(which)
        seen = len(helpers.events(self.job_id))
        lease.say("words", {})
        assert len(helpers.events(self.job_id)) == seen + holds
        assert kernel.renew(lease) == (holds and self.state == State.RUNNING)

    @precondition(lambda self: self.leases)
    @rule(which=ANY)
    def die(self, which: int) -> None:
        """Silent for longer than the lease; then the reaper comes."""
        lease, holds = self.lease(which)
        with transaction() as session:
            session.execute(
                text(
                    "UPDATE chunks SET lock_expires_at = now() - interval '1 s' "
                    "WHERE lock_token = :token"
                ),
                {"token": lease.token},
            )
        assert kernel.reap() == holds

    # ---------------------------------------------------------------- people

    @rule(what=st.sampled_from(["pause", "resume", "resume", "retry", "retry"]))
    def ask(self, what: str) -> None:
        before, seen = self.state, len(helpers.events(self.job_id))
        try:
            with transaction() as session:
                getattr(control, f"{what}_job")(session, self.job_id)
        except control.JobRefuses as refused:
            assert refused.code in MAY[what]
            assert self.state == before and len(helpers.events(self.job_id)) == seen

    @precondition(lambda self: self.leases)
    @rule(which=ANY, then=st.sampled_from(["finish", "fail", "let_go", "die"]))
    def pause_unseen(self, which: int, then: str) -> None:
        """A worker's next word comes before it has seen the pause."""
        self.ask("pause")
        if then == "fail":
            self.fail(which, retry=True, delay=0.0)
        else:
            getattr(self, then)(which)
        self.say_and_renew(which)
        self.claim(self.lease(which)[0].chunk_id)

    @precondition(lambda self: len(self.leases) > 4)
    @rule()
    def cancel(self) -> None:
        self.ask("cancel")

    # ---------------------------------------------------------------- what always holds

    @invariant()
    def rows_agree(self) -> None:
        with transaction() as session:
            of_job = {
                table: session.scalars(select(table).where(table.job_id == self.job_id)).all()
                for table in (Iteration, Stage, Chunk)
            }
            numbers = session.scalars(
                select(Event.seq).where(Event.job_id == self.job_id).order_by(Event.seq)
            ).all()
            rung = set(session.scalars(select(Outbox.chunk_id)))
        job, chunks = helpers.job(self.job_id), of_job[Chunk]
        assert list(numbers) == list(range(1, job.event_seq + 1)), "a gap in the events"
        done = {chunk.id for chunk in chunks if chunk.state == State.SUCCEEDED}
        assert done == self.applied
        for stage in of_job[Stage]:
            own = [chunk for chunk in chunks if chunk.stage_id == stage.id]
            assert stage.chunks == len(own)
            assert stage.chunks_done == sum(chunk.state == State.SUCCEEDED for chunk in own)
            assert (stage.state == State.SUCCEEDED) == (stage.chunks_done == stage.chunks)
        for chunk in chunks:
            held = chunk.state == State.RUNNING
            assert held == (chunk.lock_token is not None) == (chunk.lock_expires_at is not None)
            assert 0 <= chunk.attempt <= get_settings().max_attempts
        open_ = {state: [c for c in chunks if c.state == state] for state in ("ready", "running")}
        if job.state in TERMINAL:
            assert not open_["ready"] and not open_["running"]
            for row in (*of_job[Iteration], *of_job[Stage]):
                assert row.state in TERMINAL
            assert job.finished_at is not None
        else:
            assert [row.state for row in of_job[Iteration]].count("running") == 1
            assert [row.state for row in of_job[Stage]].count("running") == 1
            assert open_["ready"] or open_["running"], "nothing is left that could bring it on"
        assert (job.error is not None) == (job.state == State.FAILED)
        if job.state in (State.PAUSING, State.CANCELLING):
            assert open_["running"], "it waits for nobody"
        if job.state == State.CANCELLING:
            assert not open_["ready"]
        assert (job.state == State.PAUSED) == (job.paused_at is not None)
        if job.state == State.PAUSED:
            assert not open_["running"]
        if job.state == State.RUNNING:
            (stage,) = [one for one in of_job[Stage] if one.state == State.RUNNING]
            for chunk in open_["ready"]:  # announced, or a relay finds it, or its turn comes
                behind = chunk.position >= stage.chunks_done + pipeline.ANNOUNCED
                assert chunk.id in rung or chunk.rung_at is not None or behind, "never announced"

    def teardown(self) -> None:
        """Whatever happened: a job that is not cancelled can be brought to the end it would have
        had."""
        for which in range(len(self.leases)):
            self.die(which)
        for which in range(len(self.leases)):  # too late, all of them
            self.say_and_renew(which)
            self.finish(which)
            self.fail(which, retry=True, delay=0.0)
            self.let_go(which)
        self.rows_agree()
        for what in ("resume", "retry"):
            self.ask(what)
        helpers.drain(self.job_id)
        if self.state != State.CANCELLED:
            assert totals(self.job_id) == self.expected
            with transaction() as session:
                mine = Artifact.path.startswith(f"jobs/{self.job_id}/")
                paths = session.scalars(select(Artifact.path).where(mine)).all()
            folder = get_settings().artifacts_dir / "jobs" / self.job_id
            assert {resolve(path) for path in paths} == set(folder.rglob("*.jsonl"))


@pytest.mark.usefixtures("database")
def test_what_always_holds() -> None:
    undisturbed = helpers.make_job()
    helpers.drain(undisturbed)
    Job.expected = totals(undisturbed)
    run_state_machine_as_test(
        Job,
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
