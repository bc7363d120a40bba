"""States of conversations: found by their exact ids, whole or absent, and never needed for an answer."""

import itertools
import logging
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_engine import alone, greedy, random_prompts, tiny_model

from smt_hf.serving import stores
from smt_hf.serving.engine import Engine
from smt_hf.serving.state_store import HEADER, STRIDE, Conversations, mark
from smt_hf.serving.stores import MemoryStore, RedisStore, SQLiteStore, open_store

START = torch.zeros(2, 16)


def settled(kept: Conversations) -> None:
    """Until everything has been written."""
    while kept.pending:
        time.sleep(0.001)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of this module's own, on loopback."""
    pytest.importorskip("redis", reason="needs redis, of the extra serve")
    if (program := shutil.which("redis-server")) is None:
        pytest.skip("needs redis-server, Debian's package of that name")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        url = f"redis://127.0.0.1:{port}/0"
        for _ in range(200):
            try:
                RedisStore(url).close()
                break
            except ValueError:
                time.sleep(0.02)
        yield url
        server.terminate()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        return open_store("memory")
    if request.param == "sqlite":
        return open_store(f"sqlite:///{tmp_path}/states.db")
    return open_store(request.getfixturevalue("redis_url"))


def test_the_longest_prefix_that_was_kept_is_found(store):
    ids = list(range(50)) * 6
    kept = Conversations(store, tiny_model(), START)
    for length in (1, 5, STRIDE, STRIDE + 1, 200):
        kept.keep(ids[:length], START + length)
    for when in ("on their way", "written"):
        for asked, found in ((300, 200), (200, 200), (199, STRIDE + 1), (STRIDE, STRIDE), (60, 5), (4, 1)):
            tokens, memory = kept.longest(ids[:asked]) or (0, START)
            assert (tokens, memory[0, 0].item()) == (found, found), when
        assert kept.longest([9, *ids]) is None
        assert (kept.longest([*ids[:200], 1]) or (0,))[0] == 200
        settled(kept)
    assert kept.counts["errors"] == 0


def test_the_next_turn_reads_only_what_is_new_and_says_the_same(store):
    model, (first, second) = tiny_model(), random_prompts(2, longest=150, seed=4)
    with Engine(model, store=store) as engine:
        (answer,) = engine.generate([first], greedy(8))
        turn = first + answer + second
        stream = engine.submit(turn, greedy(8))
        assert [token.id for token in stream] == alone(model, turn, greedy(8))
        # The last token of an answer has not been read.
        assert stream.cached_tokens == len(first) + len(answer) - 1
        again = engine.submit(first, greedy(8))
        assert [token.id for token in again] == answer and again.cached_tokens == len(first)


def test_a_conversation_goes_on_after_a_restart(tmp_path):
    model, (prompt,) = tiny_model(), random_prompts(1)
    url = f"sqlite:///{tmp_path}/states.db"
    for number in range(2):
        with Engine(model, store=open_store(url)) as engine:
            stream = engine.submit(prompt, greedy(5))
            list(stream)
            assert stream.cached_tokens == number * len(prompt)


def test_another_model_or_start_finds_nothing_and_is_refused_by_a_file(tmp_path):
    shared = MemoryStore()
    Conversations(shared, tiny_model(seed=0), START).keep([1, 2, 3], START)
    time.sleep(0.05)
    assert Conversations(shared, tiny_model(seed=1), START).longest([1, 2, 3]) is None
    assert Conversations(shared, tiny_model(seed=0), START + 1).longest([1, 2, 3]) is None
    assert Conversations(shared, tiny_model(seed=0), START).longest([1, 2, 3]) is not None

    path = tmp_path / "states.db"
    Conversations(SQLiteStore(path), tiny_model(seed=0), START).close()
    with pytest.raises(ValueError, match="holds states of another model or start"):
        Conversations(SQLiteStore(path), tiny_model(seed=1), START)


@pytest.mark.parametrize(
    "damage", [lambda v: v[:-1], lambda v: v[:5], lambda v: v[:-1] + b"\x07", lambda v: b""]
)
def test_a_damaged_state_counts_as_absent(damage, caplog):
    store = MemoryStore()
    kept = Conversations(store, tiny_model(), START)
    kept.keep([1, 2, 3], START + 1)
    settled(kept)
    ((key, value),) = store.states[0].items()
    store.states[0][key] = damage(value)
    with caplog.at_level(logging.WARNING):
        assert kept.longest([1, 2, 3]) is None and kept.longest([1, 2, 3]) is None
    assert kept.counts["errors"] == 2 and len(caplog.records) == 1


def test_answers_need_no_store_that_works(caplog):
    class Gone:
        def known(self, keys):
            raise ConnectionError("gone")

        get = put = known

        def close(self) -> None:
            pass

    model, prompts = tiny_model(), random_prompts(5)
    with caplog.at_level(logging.WARNING), Engine(model, store=Gone()) as engine:
        assert engine.generate(prompts, greedy(6)) == [alone(model, one, greedy(6)) for one in prompts]
        assert engine.conversations is not None
        settled(engine.conversations)
        assert engine.stats()["store_errors"] == 15  # looked for once and kept twice each
    assert len(caplog.records) == 1 and "gone" in caplog.text


def test_memory_is_bounded_and_keeps_what_was_used_last():
    store = MemoryStore(max_bytes=10 * (100 + MemoryStore.OVERHEAD))
    for number in range(100):
        store.put({bytes([number]): bytes(100)})
        store.used([b"\0"])
        assert store.get([b"\0"])  # used all the time
        held = sum(map(len, store.states))
        assert held <= 10 and store.known([bytes([n]) for n in range(number - 2, number + 1) if n >= 0])
        assert bytes([number]) in store.known([bytes([number])])


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_state_that_is_used_again_and_again_is_found_when_all_others_are_forgotten(
    kind, tmp_path, monkeypatch
):
    monkeypatch.setattr(stores, "SIZE_EVERY", 8)
    url = "memory" if kind == "memory" else f"sqlite:///{tmp_path}/states.db"
    kept = Conversations(open_store(url, max_bytes=60_000), tiny_model(), START)
    often = list(range(40)) * 5
    kept.keep(often, START + 7)
    for number in range(600):
        kept.keep([number % 50, number // 50, *range(90)], START)
        if number % 5 == 0:
            settled(kept)
            found = kept.longest([*often, 1])
            assert found is not None and found[0] == len(often), number
    settled(kept)
    kept.writer.shutdown()
    assert kept.longest([0, 0, *range(90)]) is None
    assert kept.counts["errors"] == 0


def test_what_redis_keeps_is_kept_for_longer_when_it_is_used(redis_url):
    store = RedisStore(redis_url, expiry=100)
    kept = Conversations(store, tiny_model(seed=9), START)
    kept.keep(list(range(40)) * 3, START)
    settled(kept)
    names = list(store.client.scan_iter(b"smt:*"))
    ours = [name for name in names if store.client.ttl(name) <= 100]
    assert len(ours) == 2  # the state and its mark
    for name in ours:
        store.client.expire(name, 5)
    assert kept.longest(list(range(40)) * 3) is not None
    kept.writer.shutdown()
    assert all(store.client.ttl(name) > 50 for name in ours)


def test_a_store_that_hangs_is_not_waited_for_by_one_request_after_another(monkeypatch):
    class Hanging(MemoryStore):
        asked = 0

        def known(self, keys):
            self.asked += 1
            time.sleep(0.15)
            raise TimeoutError("no answer")

    kept = Conversations(store := Hanging(), tiny_model(), START)
    for _ in range(20):
        assert kept.longest([1, 2, 3]) is None
    assert store.asked == kept.counts["errors"] == 1 and kept.counts["misses"] == 20
    monkeypatch.setattr("smt_hf.serving.state_store.time.monotonic", lambda: kept.resting + 1)
    kept.longest([1, 2, 3])
    assert store.asked == 2


def test_an_idle_conversation_in_memory_costs_its_state_and_at_most_256_bytes_more():
    kept = Conversations(store := MemoryStore(), tiny_model(), START)
    conversations, state = 2000, 4 * START.numel()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(conversations):
            kept.keep([number % 50, number // 50, *range(80)], START)
            settled(kept)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used / conversations <= state + 256
    assert 0.8 * used < store.bytes < 1.2 * used  # what the limit counts is what is used


def test_a_sqlite_file_is_bounded(tmp_path):
    store = SQLiteStore(tmp_path / "states.db", max_bytes=200_000)
    for number in range(2048):
        store.put({number.to_bytes(16, "big"): bytes(1000)})
    store.close()
    assert (tmp_path / "states.db").stat().st_size < 600_000
    assert SQLiteStore(tmp_path / "states.db").known([(2047).to_bytes(16, "big")])


def test_an_idle_conversation_in_a_sqlite_file_costs_its_state_and_at_most_256_bytes_more(tmp_path):
    """5,120 bytes of random numbers each, as of a GRU of 7 M parameters, with the mark that leads to it."""
    store, rng = SQLiteStore(tmp_path / "states.db"), random.Random(0)
    for _ in range(50):
        entries: dict[bytes, bytes] = {}
        for _ in range(100):
            entries |= {rng.randbytes(16): rng.randbytes(HEADER.size + 5120), mark(rng.randbytes(16)): b""}
        store.put(entries)
    store.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) / 5000 <= 5120 + 256


def test_a_sqlite_file_with_pages_of_another_size_goes_on(tmp_path):
    old = sqlite3.connect(tmp_path / "states.db")
    old.executescript("PRAGMA page_size=4096; PRAGMA journal_mode=WAL; CREATE TABLE a (b); DROP TABLE a;")
    old.close()
    for number in range(2):
        store = SQLiteStore(tmp_path / "states.db")
        assert store.connection.execute("PRAGMA page_size").fetchone() == (4096,)
        assert store.get([b"0"]) == ((b"0", bytes(5000)) if number else None)
        store.put({b"0": bytes(5000)})
        store.close()


def test_states_are_whole_or_absent_after_a_kill(tmp_path):
    """A process that writes without end is killed; whatever is found in the file is what was written."""
    program = textwrap.dedent("""
        import itertools, runpy, sys
        from pathlib import Path
        store = runpy.run_path(sys.argv[2])["SQLiteStore"](Path(sys.argv[1]))
        for n in itertools.count():
            value = n.to_bytes(4, "big") * 500
            store.put({b"s%d" % n: value, b"m%d" % n: b""})
            if n == 50:
                print("ready", flush=True)
    """)
    for round_number in range(3):
        path = tmp_path / f"{round_number}.db"
        words = [sys.executable, "-c", program, str(path), stores.__file__]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stdout.readline()
            time.sleep(0.02 * round_number)
            os.kill(writer.pid, signal.SIGKILL)
        store = SQLiteStore(path)
        for number in itertools.count():
            keys = [b"s%d" % number, b"m%d" % number]
            there = store.known(keys)
            assert len(there) in (0, 2)
            if not there:
                break
            assert store.get(keys[:1]) == (keys[0], number.to_bytes(4, "big") * 500)
        assert number > 50
        store.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("disk", "'disk' is none; give memory"),
        ("sqlite://", "is none"),
        ("sqlite:////nowhere/at/all.db", "cannot be opened"),
        ("redis://:secret@127.0.0.1:1/0", r"redis://127\.0\.0\.1:1/0 does not answer"),
    ],
)
def test_a_store_that_cannot_be_is_refused_without_its_password(url, said):
    if url.startswith("redis"):
        pytest.importorskip("redis")
    with pytest.raises(ValueError, match=said) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


def test_another_database_and_a_newer_format_are_refused(tmp_path):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE songs (name TEXT)")
    other.commit()
    other.close()
    with pytest.raises(ValueError, match="another database"):
        SQLiteStore(tmp_path / "other.db")
    SQLiteStore(tmp_path / "new.db").close()
    newer = sqlite3.connect(tmp_path / "new.db")
    newer.execute("PRAGMA user_version=9")
    newer.close()
    with pytest.raises(ValueError, match="format 9"):
        SQLiteStore(tmp_path / "new.db")
    (tmp_path / "text.db").write_text("no database " * 200)
    with pytest.raises(ValueError, match="cannot be opened"):
        SQLiteStore(tmp_path / "text.db")
