"""One training on several devices: a process (rank) for each, which shards the model (FSDP2).

The training child starts the ranks, passes on what rank 0 says, and ends them all as soon as one
has ended badly; it is no rank itself, so nothing that a rank waits for keeps it from answering.
When it dies, however it dies, each rank reads the end of its standard input and stops. Ranks meet
in a file and talk over the loopback interface only, with NCCL on GPUs and gloo on a CPU.

torch's own `fully_shard` is used: accelerate makes FSDP of GPU processes only, so that what it does
could not be tested on a CPU.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson
import torch
import torch.distributed as dist

T = TypeVar("T")

UNTYPED = "training_failed"
"""The code of a failure that nobody foresaw, such as a connection that another rank's end broke."""

GRACE_SECONDS = 10.0
"""After one rank has ended badly: how long the others may take to say why they did."""

WAIT = timedelta(hours=1)
"""The longest that ranks wait for each other: rank 0 writes checkpoints alone."""


class RankFailed(Exception):
    """A rank ended with an error that another attempt would not cure."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model together; alone by default, and then nothing
    here changes anything. All ranks must call the same methods in the same order."""

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it speaks and writes for all."""
        return self.number == 0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def share(self, batches: Sequence[Sequence[T]]) -> Iterator[tuple[Sequence[T], float]]:
        """This rank's micro-batches of a step, and the weight of each one's loss.

        FSDP takes the mean of the ranks' gradients, so each loss counts as often as there are
        ranks. Batches come sorted by length, and those of like length go at the same time. A rank
        that has none left goes along with one item that counts nothing: sharded layers are
        gathered by all or by none.
        """
        for start in range(0, len(batches), self.count):
            mine = start + self.number
            if mine < len(batches):
                yield batches[mine], float(self.count)
            else:
                yield batches[0][:1], 0.0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks."""
        if self.count == 1:
            return values
        values = values.to(self.device)
        dist.all_reduce(values)
        return values.cpu()

    def mean(self, value: float) -> float:
        """The mean over ranks."""
        return float(self.total(torch.tensor(value, dtype=torch.float64))) / self.count

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.count > 1:
            dist.barrier()

    def shard(self, model: Any, bf16: bool) -> Any:
        """The model (see loop.prepare), each rank holding its part of every weight. Only itself may
        be called then, not its parts: the call gathers what they share.

        A decoder layer is gathered whole while it is at work; `bf16`: in that dtype, and its
        gradients are added up in float32. Embedding, norm and head are gathered throughout a pass,
        in their own dtype, so that what flows between layers is as exact as on one device. Weights
        may lie in the CPU's memory; only a layer at a time is whole on the device.
        """
        if self.count == 1:
            return model
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy()
        if bf16:
            policy = MixedPrecisionPolicy(
                torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
        mesh = init_device_mesh(self.device.type, (self.count,))
        whole = set(model._no_split_modules)
        for layer in [m for m in model.modules() if type(m).__name__ in whole]:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        return fully_shard(model, mesh=mesh)

    def trained_weights(self, model: Any) -> dict[str, torch.Tensor] | None:
        """What `model.save_pretrained` needs as its state_dict on rank 0, and nothing elsewhere:
        all that was trained, whole, in the CPU's memory. Alone: None, the model has it."""
        if self.count == 1:
            return None
        trained = {
            name: weight
            for name, weight in model.named_parameters(remove_duplicate=False)
            if weight.requires_grad
        }
        if all(weight.requires_grad for weight in model.parameters()):
            trained = model.state_dict(keep_vars=True)  # with buffers
        gathered: dict[int, torch.Tensor] = {}  # once, where two names share a weight
        for weight in trained.values():
            if id(weight) not in gathered:
                whole = plain(weight.detach())
                gathered[id(weight)] = whole.cpu() if self.first else whole.new_empty(0)
        if not self.first:
            return {}
        return {name: gathered[id(weight)] for name, weight in trained.items()}


ALONE = Ranks()


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whole, if ranks hold parts of it; all of them must ask."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def own_part(tensor: Any) -> Any:
    """What this rank holds of a tensor, and shares memory with; anything else as it is."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def as_part(value: Any, weight: torch.Tensor) -> Any:
    """The way back, for a tensor that is sharded like `weight` is (numbers are not)."""
    if not _is_sharded(weight) or not isinstance(value, torch.Tensor) or value.ndim == 0:
        return value
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        value.to(weight.device),
        weight.device_mesh,
        weight.placements,
        shape=weight.shape,
        stride=weight.stride(),
    )


def _is_sharded(value: Any) -> bool:
    if not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


# ---------------------------------------------------------------- in a rank


@contextmanager
def joined(number: int, count: int, folder: Path) -> Iterator[Ranks]:
    """Meet the other ranks in `folder`, and part from them when all are done."""
    cuda = torch.cuda.is_available()
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=number,
        world_size=count,
        timeout=WAIT,
        device_id=torch.device("cuda", 0) if cuda else None,
    )
    yield Ranks(number, count)
    dist.barrier()
    dist.destroy_process_group()


# ---------------------------------------------------------------- in the child that starts them


def run(spec_json: str, count: int, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train on `count` devices: `tell` gets rank 0's events, and its result is returned.

    Raises RankFailed, and SystemExit where a rank was killed: another attempt may go on from the
    saved state. No rank outlives this call.
    """
    gpus = _visible_gpus()
    if gpus and len(gpus) < count:
        raise RankFailed("too_few_devices", f"{count} GPUs are asked for; {len(gpus)} are here")
    lines: queue.SimpleQueue[tuple[int, dict[str, Any] | None]] = queue.SimpleQueue()
    ranks: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="selftaught-ranks-") as name:
        spec_file = Path(name) / "spec.json"
        spec_file.write_text(spec_json)
        try:
            for number in range(count):
                rank = _start(spec_file, number, count, gpus)
                ranks.append(rank)
                reader = threading.Thread(
                    target=_read, args=(number, rank.stdout, lines), daemon=True
                )
                reader.start()
            return _follow(ranks, lines, tell)
        finally:
            for rank in ranks:
                rank.kill()
            for rank in ranks:
                rank.wait()


def _visible_gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return visible.split(",")
    return [str(index) for index in range(torch.cuda.device_count())]


def _start(
    spec_file: Path, number: int, count: int, gpus: Sequence[str]
) -> subprocess.Popen[bytes]:
    """A rank sees its own GPU only; on a CPU the ranks share the cores."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    threads = max(1, (os.cpu_count() or 1) // count)
    return subprocess.Popen(
        [sys.executable, "-m", "services.trainer.child", str(spec_file), str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "GLOO_SOCKET_IFNAME": loopback,
            "NCCL_SOCKET_IFNAME": loopback,
            **({"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {}),
        },
    )


def _read(
    number: int,
    stream: IO[bytes] | None,
    lines: queue.SimpleQueue[tuple[int, dict[str, Any] | None]],
) -> None:
    """A rank's events, then None. A rank writes whole lines; one that is killed may not."""
    assert stream is not None
    try:
        for line in stream:
            if line.endswith(b"\n"):
                lines.put((number, orjson.loads(line)))
    finally:
        lines.put((number, None))


def _follow(
    ranks: Sequence[subprocess.Popen[bytes]],
    lines: queue.SimpleQueue[tuple[int, dict[str, Any] | None]],
    tell: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Until all have ended, or one badly. A rank that dies breaks the others' connections, so that
    they fail too: what one of them foresaw comes first, then a kill, then the rest."""
    result: dict[str, Any] | None = None
    failures: list[dict[str, Any]] = []
    bad: dict[int, int] = {}  # rank -> exit status
    running = set(range(len(ranks)))
    until: float | None = None
    while running:
        try:
            number, event = lines.get(timeout=until and max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        if event is None:
            running.discard(number)
            if status := ranks[number].wait():
                bad[number] = status
                until = until or time.monotonic() + GRACE_SECONDS
        elif event["type"] == "error":
            failures.append(event)
            if event["code"] != UNTYPED:
                break
        elif event["type"] == "trained":
            result = event["result"]
        else:
            tell(event)
    failures.sort(key=lambda event: bool(event["code"] == UNTYPED))
    killed = {number: -status for number, status in bad.items() if status < 0}
    if failures and (failures[0]["code"] != UNTYPED or not killed):
        raise RankFailed(failures[0]["code"], failures[0]["message"])
    if killed:
        number, signum = next(iter(killed.items()))
        raise SystemExit(f"rank {number} of {len(ranks)} was killed by signal {signum}")
    if bad or result is None:
        raise SystemExit(f"ranks ended without a result: {bad}")
    return result
