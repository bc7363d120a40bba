"""Linear layers in the layout that oneDNN multiplies fastest, for as long as a context lasts."""

import functools
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

# A prepacked product costs about 10 µs more to call, which smaller weights do not give back.
MIN_WEIGHTS = 1 << 17
# One row: what is gained must be more than a measurement's noise.
ROUNDS, GAIN = 4, 0.95
_measured: dict[Any, bool] = {}


def is_touched(module: Any) -> bool:
    """Whether somebody hooked, compiled or replaced the forward of this module."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    names = ("forward", "_compiled_call_impl")
    return any(getattr(module, name) for name in hooks) or any(module.__dict__.get(name) for name in names)


def is_watched(model: nn.Module) -> bool:
    """Whether anything stands between an operation and its kernel, or between a module and its forward."""
    return bool(
        torch._C._is_torch_function_mode_enabled()
        or is_in_torch_dispatch_mode()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or _has_any_global_hook()
        or any(map(is_touched, model.modules()))
    )


def can_be_prepacked(module: nn.Module) -> bool:
    """A plain float32 layer of some size on an x86 CPU: nothing that a library wrapped, hooked or quantized."""
    parameters = [p for p in (module.weight, module.bias) if p is not None] if type(module) is nn.Linear else []
    return (
        len(parameters) > 0
        and all(
            type(p) is nn.Parameter
            and p.dtype == torch.float32
            and p.device.type == "cpu"
            and p.layout == torch.strided
            for p in parameters
        )
        and parameters[0].numel() >= MIN_WEIGHTS
        and not is_touched(module)
        and torch.backends.mkldnn.is_available()
        and platform.machine() in ("x86_64", "AMD64")
    )


def multiply(
    linear: nn.Linear, packed: torch.Tensor, single_rows: bool, bias: torch.Tensor | None, x: torch.Tensor
) -> torch.Tensor:
    """x W^T + b by the packed copy of W, or by W itself where x is one row and `single_rows` is off.

    By W also where the code of a cell switches autocast on, or makes tensors of its own kind.
    """
    if (
        (not single_rows and x.numel() == linear.in_features)
        or type(x) is not torch.Tensor
        or torch.is_autocast_enabled("cpu")
    ):
        return F.linear(x, linear.weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def pays_for_one_row(linears: list[Any], packed: list[torch.Tensor]) -> bool:
    """Whether the packed weights are the faster ones for a single row, measured once for these shapes.

    Some processors are faster with 7 M of them, and one takes 1.14 times as long (docs/performance.md).
    """
    key = torch.get_num_threads(), tuple(linear.weight.shape for linear in linears)
    if key not in _measured:
        rows = [linear.weight.new_ones(1, linear.in_features) for linear in linears]
        best = [math.inf, math.inf]
        for _ in range(ROUNDS):
            for way in (0, 1):  # all layers in turn, so that each finds the caches as a token does
                began = perf_counter()
                for linear, weight, x in zip(linears, packed, rows, strict=True):
                    if way:
                        multiply(linear, weight, True, linear.bias, x)
                    else:
                        F.linear(x, linear.weight, linear.bias)
                best[way] = min(best[way], perf_counter() - began)
        _measured[key] = best[1] < GAIN * best[0]
    return _measured[key]


@contextmanager
def prepacked_weights(model: nn.Module) -> Iterator[None]:
    """Let the larger float32 linear layers of `model` multiply by a reordered copy of their weights.

    `F.linear` reorders the weight, or reads it badly, at every product of a few rows, which is what a
    recurrent model does at every token. The products are the same up to rounding. The copies cost the
    weights' bytes once more and are dropped at the end: kept longer, they would outlive the next change of
    the weights, which nothing announces. Without gradient only. Where anything intercepts operations or
    modules, and may want to see or change a product or a weight, nothing is replaced.
    """
    plain = not is_watched(model) and not torch.is_autocast_enabled("cpu")
    linears: list[Any] = [m for m in model.modules() if can_be_prepacked(m)] if plain else []
    packed = [torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach()) for linear in linears]
    single_rows = pays_for_one_row(linears, packed)
    try:
        for linear, weight in zip(linears, packed, strict=True):
            linear.forward = functools.partial(multiply, linear, weight, single_rows, linear.bias)
        yield
    finally:
        for linear in linears:
            linear.__dict__.pop("forward", None)
