"""Linear layers in the layout that oneDNN multiplies fastest, for as long as a context lasts."""

import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def can_be_prepacked(module: nn.Module) -> bool:
    """A plain float32 linear layer on an x86 CPU: nothing that a library wrapped, hooked or quantized."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
        and "forward" not in module.__dict__
        and torch.backends.mkldnn.is_available()
        and platform.machine() in ("x86_64", "AMD64")
    )


def multiply(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """x W^T + b for a weight that `_reorder_linear_weight` has laid out anew; no gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@contextmanager
def prepacked_weights(model: nn.Module) -> Iterator[None]:
    """Let every float32 linear layer of `model` multiply by a reordered copy of its weight.

    `F.linear` reorders the weight, or reads it badly, at every product of a few rows, which is what a
    recurrent model does at every token. The products are the same up to rounding. The copies cost the
    weights' bytes once more and are dropped at the end: kept longer, they would outlive the next change of
    the weights, which nothing announces. Use it under `torch.no_grad`.
    """
    linears: list[Any] = [module for module in model.modules() if can_be_prepacked(module)]
    try:
        for linear in linears:
            weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
            linear.forward = functools.partial(multiply, weight, linear.bias)
        yield
    finally:
        for linear in linears:
            linear.__dict__.pop("forward", None)
