"""Batches are a pure function of (seed, epoch): any start and any number of processes give the same people."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from leanpose.training.resume import ResumableBatchSampler


def joined(parts: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


@given(
    count=st.integers(1, 200),
    batch=st.integers(1, 32),
    start=st.integers(0, 5),
    world=st.integers(1, 4),
    parts=st.integers(1, 3),
)
def test_processes_share_each_batch_and_a_late_start_skips_whole_steps(
    count: int, batch: int, start: int, world: int, parts: int
) -> None:
    def steps(rank: int, world_size: int, first: int) -> list[list[int]]:
        sampler = ResumableBatchSampler(
            count, batch, parts=parts, seed=1, epoch=2, rank=rank, world_size=world_size, start=first
        )
        micro = list(sampler)
        assert len(micro) == max(len(sampler), 0)
        return [joined(micro[i : i + parts]) for i in range(0, len(micro), parts)]

    whole = steps(0, 1, 0)
    seen = joined(whole)
    assert len(seen) == len(set(seen))
    shares = [steps(rank, world, 0) for rank in range(world)]
    assert [joined(share[i] for share in shares) for i in range(len(whole))] == whole
    assert steps(0, 1, start) == whole[start:]


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(joined(ResumableBatchSampler(50, 10, parts=1, seed=s, epoch=e))) for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4
