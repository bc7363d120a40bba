"""The step of the decoding loop as one C++ program, where `generate` is given a `compile_config` on a CPU."""

import hashlib
import itertools
import types
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import CompileConfig
from transformers.utils import logging

from .prepacked_linear import is_watched

logger = logging.get_logger(__name__)

# Weights become constants, laid out for the products that the compiler writes and times.
CPU_OPTIONS = {
    "freezing": True,
    "max_autotune": True,
    "max_autotune_gemm_backends": "CPP,ATEN",
    "max_autotune_report_choices_stats": False,
    "autotune_num_choices_displayed": 0,
}

# model → what was compiled for → the program, or None where that failed. Of the present weights only.
programs: WeakKeyDictionary[nn.Module, dict[tuple, Callable | None]] = WeakKeyDictionary()


def hash_weights(model: nn.Module) -> str:
    """Of every bit of the weights, in order: a change of them need leave no other trace.

    Raises TypeError where a module keeps something else beside tensors, as quantized ones do.
    """
    digest = hashlib.sha256()
    for name, tensor in itertools.chain(model.state_dict().items(), model.named_buffers()):  # not all are saved
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}, not a tensor")
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def compiled_step(
    model: nn.Module, step: Callable, compile_config: Any, memory: torch.Tensor, tokens: torch.Tensor
) -> Callable | None:
    """`step` of this model for memory (B, K, D) and tokens (B,), compiled, and called once to make sure.

    None where that fails, with one warning. The program has the values of the weights in it, so it is made
    anew for others. Its products round differently from those of `step`.
    """
    arguments = compile_config.to_dict()
    if arguments["mode"] == CompileConfig().mode:  # CUDA graphs, which mean nothing here
        arguments["mode"] = None
    try:
        if is_watched(model):
            raise ValueError("a hook, a mode or a transform would not see what a program does")
        weights = hash_weights(model)
        precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        key = (weights, tuple(memory.shape), str(arguments), precision)
        known = {k: v for k, v in programs.get(model, {}).items() if k[0] == weights}
        if key not in known:
            programs[model] = {**known, key: None}
            programs[model][key] = compile_frozen(model, step, arguments, memory, tokens)
        return programs[model][key]
    except Exception as error:  # no compiler, or anything that happens inside one
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning(f"the step could not be compiled and runs as it is: {reason[:300]}")
        return None


def compile_frozen(
    model: nn.Module, step: Callable, arguments: dict[str, Any], memory: torch.Tensor, tokens: torch.Tensor
) -> Callable:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's, of its own code
        import torch._inductor.config as inductor  # takes a second

        # A function of its own: programs are found by their code, and one of other weights would be found too.
        program = torch.compile(types.FunctionType(step.__code__.replace(), step.__globals__), **arguments)
        # Around the call, since tracing asks for `freezing` too, and does not see the options of one program.
        with inductor.patch(CPU_OPTIONS):
            program(model, memory, tokens)
    return program
