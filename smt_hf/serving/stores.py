"""Where states are kept: memory, a SQLite file, Redis. `Store` in state_store.py is what they share."""

import math
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

EXPIRY = 7 * 24 * 3600  # seconds that Redis keeps a state after it was last used
MANY = 500  # keys in one statement of SQLite
SIZE_EVERY = 256  # states between two looks at the size of a SQLite file
# A value fills a chain of pages: the smaller these are, the less room is left in them. A state of 5,120 bytes
# takes 5,340 in pages of 512, and 5,550 in those of 4,096 that SQLite chooses.
PAGE_SIZE = 512
WAL_BYTES = 2**22  # that are written before they are brought into the file


def open_store(url: str, max_bytes: int = 2**30) -> Any:
    """ "memory", "sqlite:///path/of/file.db" or "redis://host:port/0".

    max_bytes: of memory or of the file; the states that were not used for longest go first. Redis has its own
    limit, and forgets what was not used for a week.

    Raises ValueError for another url, and for what cannot be opened.
    """
    if url == "memory":
        return MemoryStore(max_bytes)
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return SQLiteStore(Path(url.removeprefix("sqlite:///")), max_bytes)
    if url.startswith(("redis://", "rediss://", "unix://")):
        return RedisStore(url)
    raise ValueError(f"state store {url!r} is none; give memory, sqlite:///FILE or redis://HOST:PORT/0.")


class MemoryStore:
    """The states that were used last, up to `max_bytes` in all.

    Two generations stand for the order of use, which costs no bytes: what is used moves to the young one, and
    when that fills half of the room the old one is forgotten.
    """

    OVERHEAD = 152  # bytes of an entry in a dictionary, of its key and of the head of its value
    OVERHEAD_OF_MARK = 88  # bytes of an entry in a set, and of its key

    def __init__(self, max_bytes: int = 2**28):
        self.max_bytes, self.bytes = max_bytes, 0  # of the young generation
        self.states: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
        self.marks: tuple[set[bytes], set[bytes]] = (set(), set())
        self.lock = threading.Lock()

    def known(self, keys: list[bytes]) -> set[bytes]:
        with self.lock:
            return {key for key in keys if any(key in part for part in (*self.states, *self.marks))}

    def get(self, keys: list[bytes]) -> tuple[bytes, bytes] | None:
        with self.lock:
            young, old = self.states
            return next(((key, part[key]) for key in keys for part in (young, old) if key in part), None)

    def used(self, keys: list[bytes]) -> None:
        with self.lock:
            for key in keys:
                if key in self.marks[1]:
                    self.marks[1].discard(key)
                    self._keep(key, b"")
                elif key in self.states[1]:
                    self._keep(key, self.states[1].pop(key))

    def put(self, entries: dict[bytes, bytes]) -> None:
        with self.lock:
            for key, value in entries.items():
                self._keep(key, value)

    def _keep(self, key: bytes, value: bytes) -> None:
        states, marks = self.states[0], self.marks[0]
        if key in marks:
            return
        if key in states:
            self.bytes -= len(states.pop(key)) + self.OVERHEAD
        size = len(value) + self.OVERHEAD if value else self.OVERHEAD_OF_MARK
        if self.bytes + size > self.max_bytes // 2:
            self.states, self.marks, self.bytes = ({}, states), (set(), marks), 0
        self.bytes += size
        if value:
            self.states[0][key] = value
        else:
            self.marks[0].add(key)

    def close(self) -> None:
        """Nothing to close."""


class SQLiteStore:
    """One file for one model. Each put is a transaction, so a state is whole or absent whatever is killed."""

    FORMAT = 1

    def __init__(self, path: Path, max_bytes: int = 2**30):
        self.path, self.max_bytes, self.puts = path, max_bytes, 0
        self.lock = threading.Lock()
        try:
            self.connection = sqlite3.connect(path, timeout=0.5, check_same_thread=False, isolation_level=None)
            self.connection.execute(f"PRAGMA page_size={PAGE_SIZE}")  # of a new file; others keep theirs
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            (size,) = self.connection.execute("PRAGMA page_size").fetchone()
            self.connection.execute(f"PRAGMA wal_autocheckpoint={WAL_BYTES // size}")
            self._create()
        except sqlite3.Error as error:
            raise ValueError(f"state store {path} cannot be opened: {error}.") from None

    def _create(self) -> None:
        run = self.connection.execute
        (number,) = run("PRAGMA user_version").fetchone()
        if number not in (0, self.FORMAT):
            raise ValueError(f"state store {self.path} has format {number}, this version reads {self.FORMAT}.")
        if number == 0 and run("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise ValueError(f"{self.path} is another database; name a new file for the states.")
        run("CREATE TABLE IF NOT EXISTS model (fingerprint BLOB)")
        run("CREATE TABLE IF NOT EXISTS states (key BLOB PRIMARY KEY, value BLOB, at REAL)")
        run("CREATE INDEX IF NOT EXISTS by_age ON states (at)")
        run(f"PRAGMA user_version={self.FORMAT}")

    def claim(self, fingerprint: bytes) -> None:
        """Take the file for the states of one model. Raises ValueError where it has those of another."""
        with self.lock:
            found = self.connection.execute("SELECT fingerprint FROM model").fetchone()
            if found is None:
                self.connection.execute("INSERT INTO model VALUES (?)", (fingerprint,))
            elif found[0] != fingerprint:
                raise ValueError(
                    f"state store {self.path} holds states of another model or start "
                    f"({found[0].hex()[:12]}, and this one is {fingerprint.hex()[:12]}); name another file."
                )

    def known(self, keys: list[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        with self.lock:
            for first in range(0, len(keys), MANY):
                some = keys[first : first + MANY]
                marks = ",".join("?" * len(some))
                found |= {
                    key
                    for (key,) in self.connection.execute(
                        f"SELECT key FROM states WHERE key IN ({marks})", some
                    )
                }
        return found

    def get(self, keys: list[bytes]) -> tuple[bytes, bytes] | None:
        there = self.known(keys)
        for key in keys:
            if key in there:
                with self.lock:
                    row = self.connection.execute("SELECT value FROM states WHERE key=?", (key,)).fetchone()
                if row is not None:
                    return key, row[0]
        return None

    def put(self, entries: dict[bytes, bytes]) -> None:
        now = time.time()
        with self.lock, self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(
                "INSERT OR REPLACE INTO states VALUES (?, ?, ?)",
                [(key, value, now) for key, value in entries.items()],
            )
            self.puts += 1
            if self.puts % SIZE_EVERY == 0:
                self._forget()

    def used(self, keys: list[bytes]) -> None:
        now = time.time()
        with self.lock, self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany("UPDATE states SET at=? WHERE key=?", [(now, key) for key in keys])

    def _forget(self) -> None:
        """The oldest of a full file, down to nine tenths of it; SQLite fills the room that they leave."""
        names = ("page_count", "freelist_count", "page_size")
        value = {name: self.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
        used = (value["page_count"] - value["freelist_count"]) * value["page_size"]
        if used > self.max_bytes:
            (count,) = self.connection.execute("SELECT count(*) FROM states").fetchone()
            surplus = math.ceil(count * (1 - 0.9 * self.max_bytes / used))
            self.connection.execute(
                "DELETE FROM states WHERE key IN (SELECT key FROM states ORDER BY at LIMIT ?)", (surplus,)
            )

    def close(self) -> None:
        with self.lock:
            self.connection.close()


class RedisStore:
    """Any server that reaches the same Redis goes on with any conversation."""

    def __init__(self, url: str, expiry: int = EXPIRY):
        try:
            import redis
        except ImportError:
            raise ValueError("a state store in Redis needs redis; run: pip install 'smt-hf[serve]'.") from None
        self.expiry = expiry
        try:
            self.client = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
            self.client.ping()
        except (redis.RedisError, ValueError) as error:
            raise ValueError(
                f"state store {without_password(url)} does not answer: {type(error).__name__}."
            ) from None

    def known(self, keys: list[bytes]) -> set[bytes]:
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.exists(b"smt:" + key)
        return {key for key, there in zip(keys, pipeline.execute(), strict=True) if there}

    def get(self, keys: list[bytes]) -> tuple[bytes, bytes] | None:
        values = self.client.mget([b"smt:" + key for key in keys]) if keys else []
        for key, value in zip(keys, values, strict=True):
            if value is not None:
                return key, bytes(value)  # type: ignore[arg-type]  # without decode_responses
        return None

    def put(self, entries: dict[bytes, bytes]) -> None:
        pipeline = self.client.pipeline(transaction=True)
        for key, value in entries.items():
            pipeline.set(b"smt:" + key, value, ex=self.expiry)
        pipeline.execute()

    def used(self, keys: list[bytes]) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.expire(b"smt:" + key, self.expiry)
        pipeline.execute()

    def close(self) -> None:
        self.client.close()


def without_password(url: str) -> str:
    """A url as it may be shown."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1]}"
