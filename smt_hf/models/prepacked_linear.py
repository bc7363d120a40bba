"""Linear layers in the layout that oneDNN multiplies fastest, for as long as a context lasts."""

import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# A prepacked product costs about 10 µs more to call, which smaller weights do not give back.
MIN_WEIGHTS = 1 << 17
# One row is multiplied as fast by the weight as it is, unless all weights together leave the caches.
CACHED_BYTES = 1 << 24


def can_be_prepacked(module: nn.Module) -> bool:
    """A plain float32 layer of some size on an x86 CPU: nothing that a library wrapped, hooked or quantized."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and module.weight.numel() >= MIN_WEIGHTS
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
        and "forward" not in module.__dict__
        and torch.backends.mkldnn.is_available()
        and platform.machine() in ("x86_64", "AMD64")
    )


def multiply(
    linear: nn.Linear, packed: torch.Tensor, single_rows: bool, bias: torch.Tensor | None, x: torch.Tensor
) -> torch.Tensor:
    """x W^T + b by the packed copy of W, or by W itself where x is one row and `single_rows` is off."""
    if not single_rows and x.numel() == linear.in_features:
        return F.linear(x, linear.weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


@contextmanager
def prepacked_weights(model: nn.Module) -> Iterator[None]:
    """Let the larger float32 linear layers of `model` multiply by a reordered copy of their weights.

    `F.linear` reorders the weight, or reads it badly, at every product of a few rows, which is what a
    recurrent model does at every token. The products are the same up to rounding. The copies cost the
    weights' bytes once more and are dropped at the end: kept longer, they would outlive the next change of
    the weights, which nothing announces. Without gradient only.
    """
    linears: list[Any] = [module for module in model.modules() if can_be_prepacked(module)]
    single_rows = 4 * sum(linear.weight.numel() for linear in linears) > CACHED_BYTES
    try:
        for linear in linears:
            packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
            linear.forward = functools.partial(multiply, linear, packed, single_rows, linear.bias)
        yield
    finally:
        for linear in linears:
            linear.__dict__.pop("forward", None)
