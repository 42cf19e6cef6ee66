"""How benchmarks/overhead.py counts seconds."""

from __future__ import annotations

from benchmarks.overhead import counted, covered


def test_seconds_in_which_several_work_count_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 7), (0, 2)]) == 4
    assert covered([(0, 4), (1, 2), (3, 6), (6, 7)]) == 7


def test_a_training_is_its_steps_alone() -> None:
    chunks = [("pair", (1.0, 3.0)), ("pair", (2.0, 4.0)), ("train", (5.0, 15.0))]
    run = counted(20.0, chunks, (9.0, 14.0))
    assert (run.chunks, run.alone, run.training, run.spans) == (13.0, 8.0, 5.0, 3)
