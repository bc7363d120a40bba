"""States after prefixes of texts: kept in memory, in a SQLite file or in Redis, and found by the exact ids.

A state is a few kilobytes, so a conversation is kept instead of being read again at each turn. Keys are keyed
hashes of ids: the key is the fingerprint of the model, so a state of another model, or from another start, is
never found. An entry is `HEADER` (tokens read, CRC-32) and the memory, (K, D) float32; what is damaged counts
as absent.
"""

import hashlib
import logging
import struct
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch

from smt_hf.models.compiled_step import hash_weights

logger = logging.getLogger(__name__)

HEADER = struct.Struct("<QI")
# A prefix is looked for at multiples of so many tokens first, then at each length beyond the last one found.
STRIDE = 64
MOST_PENDING = 1024  # states on their way to a store; more are dropped
# A store that fails after so many seconds is not asked for a while: requests would wait one after another.
SLOW, REST = 0.1, 5.0


class Store(Protocol):
    """Bytes by key, of which any may be gone at any time. May raise anything: the caller does without."""

    def known(self, keys: list[bytes]) -> set[bytes]:
        """Which of these keys it has."""

    def get(self, keys: list[bytes]) -> tuple[bytes, bytes] | None:
        """The first of these keys that it has, with its value."""

    def put(self, entries: dict[bytes, bytes]) -> None:
        """Keep all of these, or none."""

    def used(self, keys: list[bytes]) -> None:
        """Forget these later than what has not been used since."""

    def close(self) -> None: ...


class Conversations:
    """The states of one model in a store: the longest prefix is found, and states are kept in the background.

    start: the memory (K, D) of a text before its first token. Errors of the store are counted and logged once.
    """

    def __init__(self, store: Store, model: Any, start: torch.Tensor):
        self.store = store
        about = f"smt-state-1 {hash_weights(model)} {model.dtype}".encode()
        self.fingerprint = hashlib.blake2b(about + start.cpu().numpy().tobytes(), digest_size=32).digest()
        if hasattr(store, "claim"):
            store.claim(self.fingerprint)
        self.shape = tuple(start.shape)
        self.counts = {"hits": 0, "misses": 0, "kept": 0, "errors": 0, "dropped": 0}
        self.pending: dict[bytes, bytes] = {}
        self.lock = threading.Lock()
        self.resting = 0.0  # until when, in `time.monotonic()`
        self.writer = ThreadPoolExecutor(1, "smt-states")

    def digests(self, ids: list[int]) -> Any:
        """A function of an increasing n → the key of ids[:n]."""
        data = np.asarray(ids, dtype="<i8")
        digest, done = hashlib.blake2b(digest_size=16, key=self.fingerprint), 0

        def of(length: int) -> bytes:
            nonlocal done
            digest.update(data[done:length].tobytes())
            done = length
            return digest.digest()

        return of

    def longest(self, ids: list[int]) -> tuple[int, torch.Tensor] | None:
        """(n, the memory (K, D) after ids[:n]) for the largest n that is kept, or None."""
        found = self._asked(self._longest, ids)
        self.counts["misses" if found is None else "hits"] += 1
        return found

    def _asked(self, what: Callable[..., Any], *given: Any) -> Any:
        """What the store answers, or None: full, locked, gone, of another kind. The text is read instead."""
        began = time.monotonic()
        if began < self.resting:
            return None
        try:
            return what(*given)
        except Exception as error:
            self._failed(error)
            if time.monotonic() - began > SLOW:
                self.resting = time.monotonic() + REST
        return None

    def _longest(self, ids: list[int]) -> tuple[int, torch.Tensor] | None:
        of = self.digests(ids)
        marks = {length: mark(of(length)) for length in range(0, len(ids), STRIDE)}
        with self.lock:
            pending = dict(self.pending)
        known = self.store.known(list(marks.values())) | {key for key in marks.values() if key in pending}
        for start in sorted((length for length, key in marks.items() if key in known), reverse=True):
            of = self.digests(ids)
            of(start)
            lengths = range(start + 1, min(start + STRIDE, len(ids)) + 1)
            keys = {of(length): length for length in lengths}
            newest_first = list(keys)[::-1]
            value = next(((key, pending[key]) for key in newest_first if key in pending), None)
            stored = self.store.get(newest_first)
            if stored is not None and (value is None or keys[stored[0]] > keys[value[0]]):
                value = stored
            if value is not None and (memory := self._unpacked(value[1], keys[value[0]])) is not None:
                self.writer.submit(self._asked, self.store.used, [value[0], marks[start]])
                return keys[value[0]], memory
        return None

    def _unpacked(self, value: bytes, tokens: int) -> torch.Tensor | None:
        numbers = value[HEADER.size :]
        if len(value) < HEADER.size or HEADER.unpack_from(value) != (tokens, zlib.crc32(numbers)):
            self._failed(ValueError("an entry is damaged"))
            return None
        memory = torch.from_numpy(np.frombuffer(numbers, dtype="<f4").copy())
        return memory.view(self.shape)

    def keep(self, ids: list[int], memory: torch.Tensor) -> None:
        """Keep the memory (K, D) after these ids, soon; it is found from now on."""
        numbers = memory.detach().float().cpu().numpy().tobytes()
        of = self.digests(ids)
        anchor = mark(of((len(ids) - 1) // STRIDE * STRIDE))
        entries = {of(len(ids)): HEADER.pack(len(ids), zlib.crc32(numbers)) + numbers, anchor: b""}
        with self.lock:
            if len(self.pending) >= 2 * MOST_PENDING:
                self.counts["dropped"] += 1
                return
            self.pending |= entries
        self.writer.submit(self._put, entries)

    def _put(self, entries: dict[bytes, bytes]) -> None:
        self._asked(self._store, entries)
        with self.lock:
            for key, value in entries.items():
                if self.pending.get(key) is value:
                    del self.pending[key]

    def _store(self, entries: dict[bytes, bytes]) -> None:
        self.store.put(entries)
        self.counts["kept"] += 1

    def _failed(self, error: Exception) -> None:
        if not self.counts["errors"]:
            logger.warning(f"the state store failed ({type(error).__name__}: {error}); texts are read instead.")
        self.counts["errors"] += 1

    def close(self) -> None:
        self.writer.shutdown()
        self.store.close()


def mark(digest: bytes) -> bytes:
    """The key that says: there is a state at most `STRIDE` tokens beyond here. A hint needs no more bytes."""
    return b"m" + digest[:7]
