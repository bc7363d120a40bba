"""Tokens per second of `generate`: after a context (decode), and of reading one (prefill)."""

import functools
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from transformers import CompileConfig, StaticCache
from transformers.generation.streamers import BaseStreamer

from smt_hf.models.library_names import STATE_NAME

from .measure import (
    ProductRecorder,
    bare_products,
    interleave,
    peak_memory,
    rate,
    seconds_of,
    state_bytes,
    weight_bytes,
)
from .models import BUILDERS, VOCAB_SIZE, TorchGRU, build_model, count_parameters

# Under which the models beside ours return their states.
STATE_NAMES = ("cache", "state") if STATE_NAME == "cache" else (STATE_NAME, "cache_params", "state")
CONSTANT_STATE = 64  # tokens after which a state that does not grow is measured


class Clock(BaseStreamer):
    """Notes when the prompt and each token arrived."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing to flush."""


class Subject:
    """One model under the clock. Greedy, no token ends a run."""

    def __init__(self, name: str, model: nn.Module, device: torch.device, options: dict[str, Any]):
        self.name, self.device, self.options = name, device, options
        self.model: Any = model.to(device)
        self.parameters = count_parameters(model)
        self.compile_seconds: float | None = None
        self.static = False  # whether its state stays at one address, which a program on a GPU asks for
        if not isinstance(model, TorchGRU):
            config: Any = self.model.generation_config
            config.eos_token_id = config.bos_token_id = None
            config.pad_token_id = 0

    def empty_state(self) -> Any:
        """None where the model makes it."""
        # A memory has no length.
        return StaticCache(config=self.model.config, max_cache_len=1) if self.static else None

    def read(self, ids: torch.Tensor) -> Any:
        """The state after reading ids (B, T)."""
        with torch.no_grad():
            if isinstance(self.model, TorchGRU):
                return self.model(ids)[1]
            given = {} if (state := self.empty_state()) is None else {STATE_NAME: state}
            outputs = self.model(ids, use_cache=True, **given)
        return next(getattr(outputs, name) for name in STATE_NAMES if getattr(outputs, name, None) is not None)

    def generate(self, ids: torch.Tensor, new: int, state: Any = None) -> tuple[torch.Tensor, float]:
        """(ids and `new` more tokens, seconds between the first of them and the last)."""
        if isinstance(self.model, TorchGRU):
            return self._generate_by_hand(ids, new, state)
        clock = Clock()
        given = {} if state is None else {STATE_NAME: state}
        ids = self.model.generate(
            ids, max_new_tokens=new, do_sample=False, streamer=clock, **given, **self.options
        )
        return ids, clock.times[-1] - clock.times[1]

    @torch.no_grad()
    def _generate_by_hand(self, ids: torch.Tensor, new: int, state: Any) -> tuple[torch.Tensor, float]:
        logits, state = self.model(ids if state is None else ids[:, -1:], state)
        tokens = [logits.argmax(-1, keepdim=True)]
        tokens[-1].cpu()  # waits for a device, as handing each token to a streamer does
        start = time.perf_counter()
        for _ in range(new - 1):
            logits, state = self.model(tokens[-1], state)
            tokens.append(logits.argmax(-1, keepdim=True))
            tokens[-1].cpu()
        return torch.cat([ids, *tokens], dim=1), time.perf_counter() - start

    def products(self, ids: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
        """The matrix products with weights of reading ids, the logits of the last token alone."""
        with ProductRecorder(self.model) as recorder, torch.no_grad():
            keeps = {} if isinstance(self.model, TorchGRU) else {"logits_to_keep": 1}
            try:
                self.model(ids, **keeps)
            except TypeError:  # RWKV and xLSTM compute the logits of every token
                recorder.products.clear()
                self.model(ids)
        return recorder.products


def random_ids(length: int, device: torch.device, rows: int = 1) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(0)).to(device)


def subjects(
    names: Iterable[str], parameters: int, device: torch.device, dtype: torch.dtype, compiled: bool = False
) -> list[Subject]:
    """The models that can be had; what is missing is named on stderr and skipped.

    compiled: ours a second time, with a `compile_config`, which on a GPU makes CUDA graphs.
    """
    found = []
    for name in names:
        try:
            model = build_model(name, parameters).to(dtype)
            subject = Subject(name, model, device, {})
            subject.generate(random_ids(4, device), 3)
            found.append(subject)
            if compiled and name.startswith("smt-"):
                name = f"{name}, compiled"
                program = Subject(name, model, device, {"compile_config": CompileConfig()})
                program.static = device.type != "cpu"
                first = functools.partial(program.generate, random_ids(4, device), 3, program.empty_state())
                program.compile_seconds = seconds_of(first)
                found.append(program)
        except (ImportError, AttributeError, RuntimeError) as error:
            print(f"{name} cannot be run here and is skipped: {error}", file=sys.stderr)
    return found


def decode_run(subject: Subject, context: int, new: int, rows: int = 1) -> tuple[Callable[[], float], Any]:
    """(seconds of `new` tokens after `context` others, the state).

    What can go on from a state reads the context once. A key-value cache grows by `new` at each run, which
    is little beside the context. Mamba, RWKV and xLSTM cannot, and read it before the clock starts.
    """
    ids = random_ids(context, subject.device, rows)
    goes_on = subject.name.startswith(("smt-", "gpt2", "llama", "torch-"))
    if not goes_on:
        state = subject.read(ids[:, :CONSTANT_STATE])
        return lambda: subject.generate(ids, new + 1)[1], state
    state = subject.read(ids[:, :-1]) if context > 1 else subject.empty_state()
    held = {"ids": ids}

    def run() -> float:
        held["ids"], seconds = subject.generate(held["ids"], new + 1, state)
        return seconds

    return run, state


def measure_decode(
    found: list[Subject], context: int, new: int, repeats: int, bandwidth: float, batch: int = 1
) -> list[dict]:
    """One row a model: `new` tokens after `context` others, for `batch` texts at once."""
    runs, floors, bytes_read = [], [], []
    rows: list[dict[str, Any]] = []
    for subject in found:
        run, state = decode_run(subject, context, new, batch)
        products = subject.products(random_ids(1, subject.device, batch))
        runs.append(run)
        floors.append(bare_products(products))
        bytes_read.append(weight_bytes(products))
        row: dict[str, Any] = {"state_bytes": state_bytes(state)}
        if subject.compile_seconds is None:
            row["peak_memory_bytes"] = peak_memory(subject.model, state, run)
        else:  # what a program holds does not show
            row["compile_seconds"] = subject.compile_seconds
        rows.append(row)
    timed = interleave([*runs, *floors], repeats)
    for i, (subject, row) in enumerate(zip(found, rows, strict=True)):
        speed = rate(new * batch, timed[i])
        floor = rate(batch, timed[len(found) + i])["tokens_per_second"]
        rows[i] = {
            "model": subject.name, "parameters": subject.parameters, "context": context, "batch": batch,
            **speed,
            "floor_fraction": speed["tokens_per_second"] / floor,
            "bandwidth_fraction": speed["tokens_per_second"] / batch * bytes_read[i] / bandwidth,
            **row,
        }  # fmt: skip
    return rows


def measure_prefill(found: list[Subject], context: int, repeats: int) -> list[dict]:
    """One row a model: the first token after reading `context` tokens from a cold start."""
    runs, floors = [], []
    rows: list[dict[str, Any]] = []
    for subject in found:
        ids = random_ids(context, subject.device)

        def run(subject: Subject = subject, ids: torch.Tensor = ids) -> float:
            return seconds_of(lambda: subject.generate(ids, 2 if subject.name.startswith("torch-") else 1))

        state = subject.read(ids[:, :CONSTANT_STATE])
        grows = subject.name in ("gpt2", "llama")
        runs.append(run)
        floors.append(bare_products(subject.products(ids)))
        size = state_bytes(state) * (context // min(context, CONSTANT_STATE) if grows else 1)
        rows.append({"state_bytes": size, "peak_memory_bytes": peak_memory(subject.model, None, run)})
    timed = interleave([*runs, *floors], repeats)
    for i, (subject, row) in enumerate(zip(found, rows, strict=True)):
        speed = rate(context, timed[i])
        floor = rate(context, timed[len(found) + i])["tokens_per_second"]
        rows[i] = {
            "model": subject.name, "parameters": subject.parameters, "context": context, **speed,
            "floor_fraction": speed["tokens_per_second"] / floor, **row,
        }  # fmt: skip
    return rows


def check_names(names: Iterable[str]) -> None:
    for name in names:
        if name not in BUILDERS:
            raise ValueError(f"--models names {name!r}; choose from {', '.join(BUILDERS)}.")
