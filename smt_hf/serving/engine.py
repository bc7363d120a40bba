"""Continuous batching: many texts, one matrix of memories, one step of the model for all of them.

S rows at most, n of them generating, K memory tokens of width D, V token ids. An iteration is one step of all
rows that generate, and beside it a chunk of at most `prompt_chunk` tokens of all rows that still read. Rows
join and leave between iterations, so nobody waits for the end of another's text or prompt.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from smt_hf.models.prepacked_linear import prepacked_weights
from smt_hf.models.state_cache import memory_layer

from .choosing import Choosing, Part, choose, parts_of
from .prompts import Row, checked_ids, read_tokens
from .state_store import Conversations
from .step import Stepper
from .stream import QueueFull, ShuttingDown, Stream, Token, wake

# Tokens that rows read in one go: beside rows that generate, which wait for it, and when nobody does.
PROMPT_CHUNK = 16
LONE_CHUNK = 256
MOST_LOGPROBS = 20
COUNTED = "requests", "tokens_read", "tokens_generated", "tokens_from_states", "failed", "cancelled", "steps"


class Engine:
    """Generates for many at once, in a thread of its own, until `close`.

    Args:
        model: `SMTForCausalLM`; its weights must not change as long as the engine lives.
        max_batch: rows that read or generate at once. max_queue: requests that wait for a row.
        prompt_chunk: tokens that are read between two steps of those that generate. A request of n tokens
            has its first token ⌈n / prompt_chunk⌉ + 1 iterations after it got a row.
        store: where states after prompts and answers are kept, see `open_store`.
        start_state: a state, as `load_state` returns it, from which every text goes on.
        threads: of PyTorch; None leaves them as they are.

    Greedy answers are those of `model.generate`. Products of several rows round differently from those of one,
    so where two tokens are equally probable up to rounding (1e-6) another one may be taken.
    """

    def __init__(
        self,
        model: Any,
        *,
        max_batch: int = 64,
        max_queue: int = 256,
        prompt_chunk: int = PROMPT_CHUNK,
        store: Any = None,
        start_state: Any = None,
        threads: int | None = None,
    ):
        for name, value in (("max_batch", max_batch), ("max_queue", max_queue), ("prompt_chunk", prompt_chunk)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        self.model = model.eval()
        self.max_batch, self.max_queue, self.prompt_chunk = max_batch, max_queue, prompt_chunk
        self.threads = threads
        self.start = self._start(start_state)
        self.conversations = None if store is None else Conversations(store, model, self.start)
        self.parts: list[Part] | None = None  # of the rows that generate; found anew when these change
        self.waiting: deque[Row] = deque()
        self.reading: list[Row] = []
        self.rows: list[Row] = []  # those that generate, in the order of the matrix
        self.memory = self.start[None][:0]  # (n, K, D)
        self.tokens = torch.empty(0, dtype=torch.long, device=self.start.device)  # (n,), not read yet
        self.changed = threading.Condition()
        self.closing = self.closed = False
        self.counts = dict.fromkeys(COUNTED, 0)
        self.thread = threading.Thread(target=self._run, name="smt-engine", daemon=True)
        self.thread.start()

    @torch.no_grad()
    def _start(self, state: Any) -> torch.Tensor:
        """The memory (K, D) of a text before its first token."""
        layer = None if state is None else memory_layer(state)
        return self.model.model.memory_before(layer, 1)[0].clone()

    # ------------------------------------------------------------ what others call, from any thread

    def submit(
        self,
        input_ids: Sequence[int],
        generation_config: Any = None,
        *,
        seed: int | None = None,
        logprobs: int | None = None,
        prompt_logprobs: bool = False,
        logits_processor: Sequence[Any] = (),
        ends: Callable[[int], bool] | None = None,
        whole: bool = False,
    ) -> Stream:
        """Continue `input_ids`; the tokens come out of the stream that is returned, as they are made.

        generation_config: as `model.generate` takes it; what is meant for one row of greedy search or sampling.
        seed: of this request's draws alone, which do not depend on what else is in the batch; None: a new one.
        logprobs: how many of the most probable tokens come with each token, besides its own; None: nothing.
        prompt_logprobs: whether `stream.prompt_logprobs` shall have those of the prompt, from its second token.
        logits_processor: `LogitsProcessor`s of this request, called with its ids (1, t) and scores (1, V).
        ends: called with each new token in the engine's thread; a text ends with the first that it is true of.
        whole: the tokens are read when all are there, so that any number of them may wait unread.

        The store is asked in the thread of the caller, and may keep it waiting. Raises ValueError for what
        cannot be done, QueueFull, and ShuttingDown after `close`.
        """
        ids = checked_ids(input_ids, self.model.config.vocab_size)
        if logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS:
            raise ValueError(f"logprobs is {logprobs}; it must be 0 to {MOST_LOGPROBS}.")
        choosing = Choosing(self.model, generation_config, ids, seed, logprobs, logits_processor)
        row = Row(ids, Stream(len(ids), prompt_logprobs, whole), choosing, self.start, ends)
        if self.conversations is not None and not prompt_logprobs:
            row.take_up(self.conversations.longest(ids))
        with self.changed:
            if self.closing:
                raise ShuttingDown("the engine is shutting down; ask again later.")
            self._forget_cancelled()
            if len(self.waiting) >= self.max_queue:
                raise QueueFull(f"{self.max_queue} requests are waiting already; ask again later.")
            self.waiting.append(row)
            self.counts["requests"] += 1
            self.changed.notify()
        return row.stream

    def generate(
        self, prompts: Iterable[Sequence[int]], generation_config: Any = None, **options: Any
    ) -> list[list[int]]:
        """The new ids of each prompt, in order; as many at once as there are rows. Options: see `submit`."""
        answers: list[list[int]] = []
        streams: deque[Stream] = deque()
        for prompt in prompts:
            if len(streams) == min(self.max_batch, self.max_queue):
                answers.append([token.id for token in streams.popleft().collect()])
            streams.append(self.submit(prompt, generation_config, whole=True, **options))
        return answers + [[token.id for token in stream.collect()] for stream in streams]

    def stats(self) -> dict[str, int]:
        """Counts since the start, how many rows read, generate and wait, and what the store did."""
        kept = {} if self.conversations is None else self.conversations.counts
        busy = {"reading": len(self.reading), "generating": len(self.rows), "queued": len(self.waiting)}
        return {**self.counts, **busy, **{f"store_{name}": count for name, count in kept.items()}}

    def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more requests, give those under way so long to end, and break off the rest."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join(drain_seconds)
        self.closed = True
        with self.changed:
            self.changed.notify()
        self.thread.join()
        if self.conversations is not None:
            self.conversations.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # ------------------------------------------------------------ the thread

    @torch.no_grad()
    def _run(self) -> None:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with prepacked_weights(self.model):
            self.step = Stepper(self.model)
            while self._wait():
                self._iterate()
        left = [*self.rows, *self.reading, *self.waiting]
        for row in left:
            row.stream.finish("cancelled")
        wake(row.stream for row in left)

    def _wait(self) -> bool:
        """Until there is something to do; False when that is nothing any more."""
        if self.closed:
            return False
        if self.rows or self.reading:
            return True
        with self.changed:
            while not self.waiting and not self.closing:
                self.changed.wait()
        return bool(self.waiting) and not self.closed

    def _iterate(self) -> None:
        woken: list[Stream] = []
        try:
            self._drop_cancelled(woken)
            self._join()
            if self.rows:
                self._advance(woken)
            if self.reading:
                self._read(woken)
        except Exception as error:  # whatever happens to a step, out of memory say, happens to all rows in it
            for row in (*self.rows, *self.reading):
                row.stream.finish("error", error)
                woken.append(row.stream)
            self.counts["failed"] += len(self.rows) + len(self.reading)
            self.reading = []
            self._keep([])
        wake(woken)

    def _join(self) -> None:
        """Rows for those that waited longest."""
        with self.changed:
            self._forget_cancelled()
            free = self.max_batch - len(self.rows) - len(self.reading)
            joining = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        for row in joining:
            self.counts["tokens_from_states"] += row.read
        self.reading += joining

    def _forget_cancelled(self) -> None:
        """End the requests that were given up while they waited. The lock is held."""
        gone = [row for row in self.waiting if row.stream.cancelled]
        if gone:
            self.waiting = deque(row for row in self.waiting if row not in gone)
            self.counts["cancelled"] += len(gone)
            for row in gone:
                row.stream.finish("cancelled")
            wake(row.stream for row in gone)

    def _drop_cancelled(self, woken: list[Stream]) -> None:
        # Asked once: who gives a row up between two looks would be dropped without an end.
        gone = {row for row in (*self.rows, *self.reading) if row.stream.cancelled}
        if not gone:
            return
        for row, memory in zip(self.rows, self.memory, strict=True):
            if row in gone:
                self._remember(row, memory)
        for row in gone:
            row.stream.finish("cancelled")
            woken.append(row.stream)
        self.counts["cancelled"] += len(gone)
        self._keep([place for place, row in enumerate(self.rows) if row not in gone])
        self.reading = [row for row in self.reading if row not in gone]

    def _remember(self, row: Row, memory: torch.Tensor) -> None:
        """Keep the state (K, D) of a row that generated: it has read all but the last of its tokens."""
        if self.conversations is not None:
            self.conversations.keep([*row.ids, *row.choosing.new_ids[:-1]], memory)

    def _keep(self, places: list[int]) -> None:
        """The rows at these places of the matrix stay."""
        index = torch.tensor(places, dtype=torch.long, device=self.memory.device)
        self.rows = [self.rows[place] for place in places]
        self.memory, self.tokens = self.memory[index], self.tokens[index]
        self.parts = None

    def _advance(self, woken: list[Stream]) -> None:
        """One step of all rows that generate."""
        self.memory, logits = self.step(self.memory, self.tokens)
        self.counts["steps"] += 1
        wishes = [row.choosing for row in self.rows]
        self.parts = self.parts or parts_of(wishes, logits.device)
        ids, chosen, failures = choose(wishes, self.parts, logits)
        self.tokens = ids
        staying = []
        for place, (row, token) in enumerate(zip(self.rows, chosen, strict=True)):
            if self._give(row, token, failures.get(place), self.memory[place]):
                staying.append(place)
            woken.append(row.stream)
        if len(staying) < len(self.rows):
            self._keep(staying)

    def _give(self, row: Row, token: Token, failure: Exception | None, memory: torch.Tensor) -> bool:
        """Hand out a token; whether the row goes on. memory (K, D): without this token."""
        if failure is not None:
            self.counts["failed"] += 1
            row.stream.finish("error", failure)
            return False
        self.counts["tokens_generated"] += 1
        row.choosing.new_ids.append(token.id)
        row.stream.tokens.append(token)
        reason = row.ended_by(token.id)
        unread = row.stream.unread() if reason is None else None
        if reason is None and unread is None:
            return True
        self._remember(row, memory)
        self.counts["cancelled"] += unread is not None
        row.stream.finish(reason or "error", unread)
        return False

    def _read(self, woken: list[Stream]) -> None:
        """A chunk of each prompt; those that are through get their first token."""
        chunk = self.prompt_chunk if self.rows else LONE_CHUNK
        rows = self.reading
        counts = [min(chunk, len(row.ids) - row.read) for row in rows]
        if max(counts):
            read_tokens(self.model, rows, counts)
            self.counts["tokens_read"] += sum(counts)
        through = [row for row in rows if row.read == len(row.ids)]
        if not through:
            return
        self.reading = [row for row in rows if row.read < len(row.ids)]
        memory = torch.stack([row.memory for row in through])
        logits = self.model.lm_head(self.model.model.read_out(memory))
        wishes = [row.choosing for row in through]
        ids, chosen, failures = choose(wishes, parts_of(wishes, logits.device), logits)
        staying = []
        for place, (row, token) in enumerate(zip(through, chosen, strict=True)):
            if self.conversations is not None:
                self.conversations.keep(row.ids, row.memory)
            if self._give(row, token, failures.get(place), row.memory):
                staying.append(place)
            woken.append(row.stream)
        if staying:
            index = torch.tensor(staying, device=memory.device)
            self.rows += [through[place] for place in staying]
            self.memory = torch.cat([self.memory, memory[index]])
            self.tokens = torch.cat([self.tokens, ids[index]])
            self.parts = None
