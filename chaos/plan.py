"""Which faults, against what, in which order: all of it follows from a seed.

The plan knows nothing about the stack; when a fault meets which piece of work is up to the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

WORKERS = ("generator1", "generator2", "trainer1", "trainer2", "evaluator-worker")
SERVICES = ("gateway", "evaluator", "relay", "webhooks", "janitor")
SERVERS = ("redis", "postgres")
CHILD = "training child"
"""The process that trains, whichever worker it belongs to."""
SUPERVISOR = "supervisor"
PAST_LEASE = "freeze past the lease"

KINDS = {
    "kill": "kill -9",
    "stop": "told to stop (SIGTERM; Postgres: a fast shutdown)",
    "freeze": "SIGSTOP for 1 to 4 s, then SIGCONT",
    PAST_LEASE: "SIGSTOP until the lease is lost, then SIGCONT",
    "flush": "FLUSHALL",
    "cut": "all its connections ended (CLIENT KILL, pg_terminate_backend)",
}
"""Kind of fault -> what is done."""

_DECK = (
    *(("kill", target) for target in (*WORKERS, *SERVICES, *SERVERS, CHILD)),
    *(("stop", target) for target in (*WORKERS, *SERVICES, *SERVERS)),
    *(("freeze", target) for target in (*WORKERS, *SERVICES, *SERVERS, CHILD)),
    # What issue 6 asks for by name comes twice as often.
    *((PAST_LEASE, target) for target in WORKERS * 2),
    *(("flush", "redis"), ("cut", "redis"), ("cut", "postgres")) * 2,
    ("kill", SUPERVISOR),
)


@dataclass(frozen=True)
class Fault:
    """`after`: seconds since the one before; `hold`: seconds that a frozen process stays so."""

    number: int
    kind: str
    target: str
    after: float
    hold: float


def plan(seed: int, pace: float, lease: float) -> Iterator[Fault]:
    """Faults without end, every `pace` seconds on average: the same ones for the same seed.

    Cards are dealt from a shuffled deck of all pairs of kind and target, and then from another, so
    a run of a few minutes already meets most of them. `lease`: seconds of a lease.
    """
    random = Random(seed)
    number = 0
    while True:
        for kind, target in random.sample(_DECK, len(_DECK)):
            number += 1
            after = random.uniform(0.3, 1.7) * pace
            hold = random.uniform(1.0, 4.0)
            if kind == PAST_LEASE:
                hold += lease + 1.0
            yield Fault(number, kind, target, round(after, 2), round(hold, 2))
