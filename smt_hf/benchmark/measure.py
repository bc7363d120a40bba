"""Clocks, floors and bytes: what the measurements of this room share."""

import os
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary
from transformers.pytorch_utils import Conv1D

from smt_hf.version import __version__

BANDWIDTH_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}  # far beyond the caches, and the time of a launch


def synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def seconds_of(function: Callable[[], Any]) -> float:
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def interleave(functions: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """What each function returns, `repeats` times, after one round that does not count.

    Round after round, so that whatever slows the machine down for a while slows all of them down.
    """
    results: list[list[float]] = [[] for _ in functions]
    for round_ in range(repeats + 1):
        for values, function in zip(results, functions, strict=True):
            value = function()
            if round_:
                values.append(value)
    return results


def rate(count: int, seconds: Sequence[float]) -> dict[str, Any]:
    """Median and range of count/second over the repeats."""
    rates = sorted(count / s for s in seconds)
    return {"tokens_per_second": statistics.median(rates), "range": [rates[0], rates[-1]]}


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure_bandwidth(device: torch.device) -> float:
    """Bytes per second at which a sum reads memory: the best of five, as nothing reads faster than it can."""
    size = BANDWIDTH_BYTES.get(device.type, BANDWIDTH_BYTES["cpu"])
    numbers = torch.ones(size // 4, device=device)
    return size / min(seconds_of(numbers.sum) for _ in range(5))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a reader needs to place the figures; no names of hosts or people."""
    return {
        "processor": processor_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bandwidth_bytes_per_second": measure_bandwidth(device),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "smt_hf": __version__,
    }


class ProductRecorder:
    """While entered, notes the matrix products with weights that `model` computes: (rows, weight) in order."""

    def __init__(self, model: nn.Module):
        self.products: list[tuple[int, torch.Tensor]] = []
        self.modules = [m for m in model.modules() if isinstance(m, (nn.Linear, Conv1D, nn.GRU))]

    def note(self, module: Any, args: tuple) -> None:
        x = args[0]
        if isinstance(module, nn.GRU):  # the input's product over all timesteps, the state's one by one
            into, again = cast(torch.Tensor, module.weight_ih_l0), cast(torch.Tensor, module.weight_hh_l0)
            self.products.append((x.shape[0] * x.shape[1], into))
            self.products += [(x.shape[0], again)] * x.shape[1]
        else:
            weight: Any = module.weight.T if isinstance(module, Conv1D) else module.weight
            self.products.append((x.numel() // x.shape[-1], weight))

    def __enter__(self) -> "ProductRecorder":
        self.handles = [module.register_forward_pre_hook(self.note) for module in self.modules]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


def bare_products(products: list[tuple[int, torch.Tensor]]) -> Callable[[], float]:
    """Seconds of the products alone, as `F.linear` computes them: the first floor."""
    inputs = {
        (rows, weight.shape[1]): torch.randn(rows, weight.shape[1], dtype=weight.dtype, device=weight.device)
        for rows, weight in products
    }
    calls = [(inputs[rows, weight.shape[1]], weight) for rows, weight in products]

    def run() -> None:
        for x, weight in calls:
            F.linear(x, weight)

    return lambda: seconds_of(run)


def weight_bytes(products: list[tuple[int, torch.Tensor]]) -> int:
    """Bytes of the weights in the products, each counted once: over the bandwidth, the second floor."""
    weights = {weight.data_ptr(): weight.numel() * weight.element_size() for _, weight in products}
    return sum(weights.values())


def tensors_in(thing: Any, seen: set[int] | None = None) -> list[torch.Tensor]:
    """Every tensor that a state holds, however it is built."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (nn.Module, type)):
        return []
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, dict):
        parts: Any = thing.values()
    elif isinstance(thing, (list, tuple)):
        parts = thing
    else:
        parts = getattr(thing, "__dict__", {}).values()
    return [tensor for part in parts for tensor in tensors_in(part, seen)]


def state_bytes(state: Any) -> int:
    """Bytes of the numbers a state holds; counters and flags, whole numbers, are left out."""
    return sum(t.numel() * t.element_size() for t in tensors_in(state) if t.is_floating_point())


class PeakMemory(TorchDispatchMode):
    """While entered, follows the bytes of all tensors made and freed; `peak` is the most at once.

    Counted at the tensors rather than at the process, whose allocator keeps what was freed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: Any = WeakIdKeyDictionary()

    def free(self, size: int) -> None:
        self.live -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if not isinstance(tensor, torch.Tensor):
                continue
            owner = tensor.untyped_storage()
            size = owner.nbytes()
            if owner not in self.known:
                self.known[owner] = size
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(owner, self.free, size)
        return out


def peak_memory(model: nn.Module, state: Any, function: Callable[[], Any]) -> int:
    """Most bytes of tensors at once: weights, the state at hand, and all that `function` makes."""
    held = sum(p.numel() * p.element_size() for p in model.parameters()) + state_bytes(state)
    device = next(model.parameters()).device
    if device.type == "cuda":  # the allocator knows, and sees what a kernel allocates within
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return held + torch.cuda.max_memory_allocated(device) - before
    with PeakMemory() as memory:
        function()
    return held + memory.peak
