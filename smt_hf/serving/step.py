"""One step of a batch: memories (n, K, D) and tokens (n,) to the next memories and their logits (n, V)."""

from typing import Any

import torch

Step = tuple[torch.Tensor, torch.Tensor]


class Stepper:
    """`model._step`; on a CUDA device as a captured graph, of which there is one for each power of two of rows.

    A graph spares the launches, which at few rows take longer than the products. Rows beyond n are computed and
    thrown away.
    """

    def __init__(self, model: Any):
        self.model = model
        self.graphs: dict[int, tuple[Any, torch.Tensor, torch.Tensor, Step]] | None = None
        if model.device.type == "cuda":
            self.graphs = {}

    def __call__(self, memory: torch.Tensor, tokens: torch.Tensor) -> Step:
        if self.graphs is None:
            return self.model._step(memory, tokens)
        rows = len(tokens)
        size = 1 << (rows - 1).bit_length()
        if size not in self.graphs:
            self.graphs[size] = self.capture(size)
        graph, memory_in, tokens_in, (memory_out, logits) = self.graphs[size]
        memory_in[:rows] = memory
        tokens_in[:rows] = tokens
        graph.replay()
        return memory_out[:rows].clone(), logits[:rows].clone()

    def capture(self, size: int) -> tuple[Any, torch.Tensor, torch.Tensor, Step]:
        memory = self.model.model.start_memory(size).contiguous().clone()
        tokens = torch.zeros(size, dtype=torch.long, device=memory.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate at their first calls, which a graph may not hold
            for _ in range(3):
                self.model._step(memory, tokens)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.model._step(memory, tokens)
        return graph, memory, tokens, outputs
