"""Kill a server under load at random moments, start it again on its store, and compare all that it says.

`serving.py FOLDER MINUTES SEED` prints each failure, and what was done. Clients hold
conversations: each prompt is the one before, its answer, and some words more. The server is `smt-hf serve` of
the model in the package, with its states in a SQLite file. A client that gets no answer asks again.
"""

import asyncio
import json
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import torch

from smt_hf import load_example
from smt_hf.example import FOLDER as EXAMPLE

CLIENTS = 64
TURNS = 5
ANSWER = 24  # tokens
TALKS_A_MINUTE = 64  # other conversations than these begin again from the first
WORDS = ("the", "a", ":func:", "class", "return", "open", "file", "list", "value", "it", "is", "not", "`None`")
# Two tokens that are as probable as each other may be taken one for the other in another batch.
CLOSE = 1e-4
LEAVES = 0.02  # of the clients, in the middle of an answer
LIFE = 20.0  # seconds that a server serves, at most
PATIENCE = 60.0  # seconds for a server to start, to answer, and to end

Turn = tuple[str, str]  # a prompt and its answer


@torch.no_grad()
def talks_of(rng: random.Random, count: int) -> list[list[Turn]]:
    """Conversations as `model.generate` leads them; one ends before a token that was hardly preferred."""
    model, tokenizer = load_example()
    talks: list[list[Turn]] = [[] for _ in range(count)]
    texts = [f"{number}. {words(rng, 40)}" for number in range(count)]
    going = list(range(count))
    for _ in range(TURNS):
        given = tokenizer(
            [texts[place] for place in going], return_tensors="pt", padding=True, padding_side="left"
        )
        found = model.generate(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], max_new_tokens=ANSWER,
            do_sample=False, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        said = found.sequences[:, given["input_ids"].shape[1] :]
        best = torch.stack(found.logits, 1).topk(2).values
        sure = ((best[..., 0] - best[..., 1] > CLOSE) | (said == tokenizer.pad_token_id)).all(1).tolist()
        answers = tokenizer.batch_decode(said, skip_special_tokens=True)
        for place, answer in zip(going, answers, strict=True):
            talks[place].append((texts[place], answer))
            texts[place] += f"{answer}\n{words(rng, 8)}"
        for place in [place for place, clear in zip(going, sure, strict=True) if not clear]:
            talks[place].pop()
            going.remove(place)
    return [talk for talk in talks if talk]


def words(rng: random.Random, most: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))


class Broken(Exception):
    """A stream came to no end."""


@dataclass
class Soak:
    """life: number of the process that serves, from 1. ends: by which signal a life was ended. asked: turns
    (conversation, place) that were asked for in this life, whose states it may have made itself."""

    folder: Path
    rng: random.Random
    talks: list[list[Turn]]
    until: float
    life: int = 0
    next_talk: int = 0
    ends: dict[int, signal.Signals] = field(default_factory=dict)
    asked: set[tuple[int, int]] = field(default_factory=set)
    counts: Counter = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)  # of each life, MiB
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.store, self.log = self.folder / "states.db", self.folder / "server.log"

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until

    def fail(self, what: str) -> None:
        self.failures.append(what)
        print(f"FAILED in life {self.life}: {what}", flush=True)

    # ------------------------------------------------------------ the clients

    async def client(self) -> None:
        async with httpx.AsyncClient(timeout=PATIENCE) as http:
            while not self.over:
                talk, self.next_talk = self.next_talk % len(self.talks), self.next_talk + 1
                for turn in range(len(self.talks[talk])):
                    await self.take_turn(http, talk, turn)
                    await asyncio.sleep(0.2 * self.rng.random())
                    if self.over:
                        return

    async def take_turn(self, http: httpx.AsyncClient, talk: int, turn: int) -> None:
        """Ask until there is an answer, and compare it."""
        expected = self.talks[talk][turn][1]
        while True:
            try:
                answered = await self.ask(http, talk, turn)
            except httpx.TimeoutException:
                self.fail(f"no answer in {PATIENCE:g} seconds")
                return
            except (httpx.TransportError, Broken):
                answered = None
            if answered is not None:
                break
            self.counts["asked again"] += 1
            await asyncio.sleep(1 + self.rng.random())
        text, cached, new_here = answered
        self.counts["answers"] += 1
        if text != expected:
            self.fail(f"conversation {talk}, turn {turn}: {text!r} instead of {expected!r}")
        if turn and new_here:
            self.counts["continued after a restart"] += 1
            self.counts["restored after a restart"] += cached > 0

    async def ask(self, http: httpx.AsyncClient, talk: int, turn: int) -> tuple[str, int, bool] | None:
        """(text, cached tokens, whether all states of it are of earlier lives); None where the server does not
        answer now, or this client leaves."""
        body = {
            "prompt": self.talks[talk][turn][0], "max_tokens": ANSWER, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        leaves = self.rng.random() < LEAVES
        text, cached, done = "", 0, False
        self.counts["requests"] += 1
        async with http.stream("POST", f"{self.address}/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                said = (await answer.aread()).decode()
                if answer.status_code != 503 or "shutting down" not in said:
                    self.fail(f"status {answer.status_code}: {said}")
                return None
            life = self.life
            new_here = life > 1 and not {(talk, turn), (talk, turn - 1)} & self.asked
            self.asked.add((talk, turn))
            try:
                async for line in answer.aiter_lines():
                    if not line.startswith("data: "):
                        continue
                    if leaves and text:
                        self.counts["left"] += 1
                        return None
                    if done := line == "data: [DONE]":
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        self.fail(f"a stream ended with {event}")
                        return None
                    text += "".join(choice["text"] for choice in event["choices"])
                    if event.get("usage"):
                        cached = event["usage"]["prompt_tokens_details"]["cached_tokens"]
            except httpx.TransportError as error:
                self.broken(life, repr(error))
        if not done:
            self.broken(life, "no [DONE]")
        return text, cached, new_here

    def broken(self, life: int, how: str) -> None:
        """An answer had begun, which only SIGKILL breaks off."""
        if self.ends.get(life) != signal.SIGKILL:
            self.fail(f"an answer was broken off ({how}) by {self.ends.get(life)}")
        raise Broken

    # ------------------------------------------------------------ the server

    def start(self) -> "subprocess.Popen[bytes]":
        command = [
            sys.executable, "-m", "smt_hf", "serve", str(EXAMPLE), "--host", "127.0.0.1",
            "--port", str(self.port), "--state-store", f"sqlite:///{self.store}",
        ]  # fmt: skip
        self.life += 1
        self.asked.clear()
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    async def end(self, process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
        """End a life, and look at what it left."""
        await self.look(process)
        if process.poll() is not None:
            self.fail(f"the server ended by itself with {process.returncode}")
        self.ends[self.life] = number
        process.send_signal(number)
        try:
            code = await asyncio.to_thread(process.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            self.fail(f"the server did not end in {PATIENCE:g} seconds after {number.name}")
            process.kill()
            code = process.wait()
        if code not in {signal.SIGKILL: (-9,), signal.SIGTERM: (0, -15, 143)}[number]:
            self.fail(f"exit code {code} after {number.name}")
        self.counts[number.name] += 1
        await asyncio.to_thread(self.check_store)

    async def ready(self, process: "subprocess.Popen[bytes]") -> None:
        async with httpx.AsyncClient() as http:
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until and process.poll() is None:
                try:
                    await http.get(f"{self.address}/health")
                    return
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        self.fail(f"the server does not answer {PATIENCE:g} seconds after it was started")

    async def look(self, process: "subprocess.Popen[bytes]") -> None:
        """What a life has to say about itself, if it answers already."""
        status = Path(f"/proc/{process.pid}/status")
        try:
            async with httpx.AsyncClient(timeout=5) as http:
                lines = (await http.get(f"{self.address}/metrics")).text.splitlines()
        except httpx.TransportError:
            self.counts["killed while it loaded"] += 1
            return
        found = dict(line.removeprefix("smt_").split() for line in lines if line.startswith("smt_"))
        for name in ("tokens_generated", "tokens_read", "tokens_from_states", "store_errors", "failed"):
            self.counts[name] += int(found.get(name, 0))
        if status.exists():
            (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
            self.memory.append(int(line.split()[1]) // 1024)

    def check_store(self) -> None:
        """A copy, for whoever opens a file after a kill mends it."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in self.folder.glob("states.db*"):
            shutil.copy(path, copy)
        if (copy / "states.db").exists():
            with closing(sqlite3.connect(copy / "states.db")) as file:
                if (said := file.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                    self.fail(f"the store is damaged: {said[:3]}")

    async def lives(self) -> None:
        process = self.start()
        try:
            while True:
                if self.rng.random() < 0.8:  # the others are ended while they load, or soon after
                    await self.ready(process)
                await asyncio.sleep(self.rng.uniform(0, LIFE))
                if self.over:
                    break
                await self.end(process, signal.SIGTERM if self.rng.random() < 0.3 else signal.SIGKILL)
                process = self.start()
            await self.finished
            await self.end(process, signal.SIGTERM)
        finally:
            process.kill()
            process.wait()

    async def run(self) -> None:
        self.finished = asyncio.gather(*(self.client() for _ in range(CLIENTS)))
        await asyncio.gather(self.finished, self.lives())
        if self.store.with_name("states.db-wal").exists():
            self.fail("a server that ended as it was asked to left its log of writes")
        if b"Traceback" in (said := self.log.read_bytes()):
            self.fail(f"a traceback in {self.log}: {said[said.index(b'Traceback') :][:2000].decode()}")
        if not self.counts["restored after a restart"]:
            self.fail("no state was restored after a restart")


def report(soak: Soak) -> None:
    print("; ".join(f"{name} {count:,}" for name, count in sorted(soak.counts.items())))
    print(f"MiB of the process at the end of each life: {soak.memory}")
    print(f"{soak.counts['answers']:,} answers in {soak.life} lives, {len(soak.failures)} failures")


if __name__ == "__main__":
    folder, minutes, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    began = time.monotonic()
    rng = random.Random(seed)
    rounds = max(1, round(minutes * TALKS_A_MINUTE / CLIENTS))
    talks = [talk for _ in range(rounds) for talk in talks_of(rng, CLIENTS)]
    seconds = time.monotonic() - began
    print(f"{len(talks)} conversations of {sum(map(len, talks))} turns made in {seconds:.0f} s", flush=True)
    done = Soak(folder, rng, talks, began + 60 * minutes)
    asyncio.run(done.run())
    report(done)
    sys.exit(1 if done.failures else 0)
