"""Servers under load on loopback: ours, and `transformers serve` with other models of the same size.

A stream is a client that asks for one answer and reads it token by token. All streams begin at once.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from smt_hf.data.tokenizer import byte_tokenizer

from .decoding import Subject
from .measure import state_bytes
from .models import build_model

PROMPT = "Once more, with other words. "
ANSWER = 32  # tokens of an answer
TURNS = 6
OURS = "smt-hf serve"
# What serves which models; each has a process of its own.
SERVERS = {
    "smt-gru": (OURS,),
    "gpt2": ("transformers serve", "transformers serve --continuous-batching"),
    "mamba": ("transformers serve",),
}
PATIENCE = 600.0  # seconds that one round may take


@contextmanager
def serving(server: str, folder: Path) -> Iterator[str]:
    """The address of a server of the model in a folder, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, command, *options = server.split()
    run = "import sys; from smt_hf.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", run, command, str(folder)]
    if program == "transformers":
        words = [str(Path(sys.executable).with_name("transformers")), command, str(folder), *options]
    log = (folder / "server.log").open("w")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([*words, "--port", str(port)], stdout=log, stderr=log, env=environment)
    address = f"http://localhost:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(
                        f"{server} ended: {(folder / 'server.log').read_text()[-300:]}"
                    ) from None
                time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()
        log.close()


async def one_stream(client: Any, address: str, model: str, prompt: str, tokens: int) -> tuple[float, float]:
    """Seconds until the first piece of an answer, and until its end."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    began, first = time.perf_counter(), 0.0
    async with client.stream("POST", f"{address}/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            if "choices" not in json.loads(line[6:]):
                raise RuntimeError(line[:300])
            first = first or time.perf_counter() - began
    if not first:
        raise RuntimeError(f"an answer of status {answer.status_code} came without a token")
    return first, time.perf_counter() - began


async def round_of(address: str, model: str, streams: int, number: int) -> dict[str, float]:
    """All streams at once, each with a prompt of its own."""
    import httpx

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=PATIENCE, limits=limits) as client:
        began = time.perf_counter()
        prompts = [f"{number} {place} {PROMPT}" for place in range(streams)]
        times = await asyncio.gather(*(one_stream(client, address, model, one, ANSWER) for one in prompts))
        whole = time.perf_counter() - began
    firsts = sorted(first for first, _ in times)
    return {
        "tokens_per_second": streams * ANSWER / whole,
        "first_token_p50": firsts[len(firsts) // 2],
        "first_token_p95": firsts[min(len(firsts) - 1, int(len(firsts) * 0.95))],
    }


async def conversation(address: str, model: str, turn: int) -> list[float]:
    """Seconds to the first token of each turn, which adds `turn` tokens to all that was said before."""
    import httpx

    text, seconds = "", []
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        for number in range(TURNS):
            text += (f"Turn {number}. " + PROMPT * turn)[:turn]
            seconds.append((await one_stream(client, address, model, text, 1))[0])
    return seconds


def measure_serving(
    models: list[str], parameters: int, streams: list[int], turn: int, repeats: int
) -> list[dict[str, Any]]:
    """A row for each server, model and number of streams; the rate is the median of `repeats` rounds."""
    rows = []
    for name in models:
        subject = Subject(name, build_model(name, parameters), torch.device("cpu"), {})
        read = subject.read(torch.zeros(1, TURNS * turn, dtype=torch.long))
        about = {"model": name, "parameters": subject.parameters, "context": TURNS * turn}
        about["state_bytes"] = state_bytes(read)
        for server in SERVERS[name]:
            with tempfile.TemporaryDirectory() as folder:
                subject.model.save_pretrained(folder)
                byte_tokenizer().save_pretrained(folder)
                try:
                    with serving(server, Path(folder)) as address:
                        found = asyncio.run(load(address, folder, streams, turn, repeats))
                except RuntimeError as error:
                    reason = " ".join(str(error).split())[:200]
                    print(f"{server} with {name} was left out: {reason}", file=sys.stderr)
                    continue
            for row in found:
                rows.append({**about, "server": server, "method": f"{server}, {row['streams']} streams", **row})
    return rows


async def load(address: str, model: str, streams: list[int], turn: int, repeats: int) -> list[dict[str, Any]]:
    await round_of(address, model, 1, -1)  # what is done once is not counted
    turns = await conversation(address, model, turn)
    rows = []
    for count in streams:
        rounds = [await round_of(address, model, count, number) for number in range(repeats)]
        rounds.sort(key=lambda one: one["tokens_per_second"])
        rates = [one["tokens_per_second"] for one in rounds]
        middle = rounds[len(rounds) // 2]
        turned = {"turn_1": turns[0], "turn_6": turns[-1]}
        rows.append({"streams": count, "range": [rates[0], rates[-1]], **turned, **middle})
    return rows
