"""Batches as a function of the step: their indices, their length, and the draws that go with them."""

from collections.abc import Generator, Iterator

import torch
from torch.utils.data import DataLoader

from smt_hf.data.dataset import SequenceDataset, keep_batch
from smt_hf.runs.arguments import SMTPretrainingArguments

from .stops import leave_signals_to_the_parent, signals_held_back


class StepSampler:
    """Batches of dataset indices as a pure function of (seed, step): resuming needs no more than the step.

    Indices are drawn with replacement, uniformly; each process takes its own part of every batch, so the
    global batch does not depend on how many there are.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        parts: int,
        seed: int,
        first_step: int,
        rank: int,
        world_size: int,
    ):
        self.size, self.batch_size, self.parts, self.seed = size, batch_size, parts, seed
        self.first_step, self.rank, self.world_size = first_step, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            indices = torch.randint(self.size, (self.batch_size,), generator=generator)
            for part in indices.chunk(self.parts):
                yield part.chunk(self.world_size)[self.rank].tolist()
            step += 1


def batches_at_length(
    dataset: SequenceDataset,
    length: int,
    full_length: int,
    args: SMTPretrainingArguments,
    first_step: int,
    rank: int,
    world_size: int,
) -> Generator[dict[str, torch.Tensor], None, None]:
    """Endless batches of sequences of `length` tokens, from `first_step` on, for one of the processes.

    Shorter sequences come in larger batches, so that tokens per step stay the same. Workers, if there are any,
    live until the generator is closed, whatever signal reaches them.
    """
    dataset = dataset.at_length(length)
    whole = args.gradient_accumulation_steps * world_size
    batch_size = max(1, round(args.batch_size * full_length / length / whole)) * whole
    sampler = StepSampler(
        len(dataset),
        batch_size,
        args.gradient_accumulation_steps,
        args.seed,
        first_step,
        rank,
        world_size,
    )
    # The sampler is a batch sampler in all but its class, which torch's annotation asks for.
    loader: DataLoader = DataLoader(
        dataset,  # type: ignore[arg-type]  # map-style, whatever its class
        batch_sampler=sampler,
        collate_fn=keep_batch,
        num_workers=args.dataloader_num_workers,
        worker_init_fn=leave_signals_to_the_parent,
    )
    with signals_held_back():  # until a worker has said that it ignores them
        batches = iter(loader)
    try:
        yield from batches
    finally:
        del batches  # which ends its workers
