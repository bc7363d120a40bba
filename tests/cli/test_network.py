"""Where the Hub does not answer it is asked once, and one sentence says so."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
from tiny_commands import TINY, one_line, write_corpus

from smt_hf.cli import main, network


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The requests to a Hub that hangs up on each of them."""
    found: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        found.append(connection.recv(1000).split(b"\r\n")[0])

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        network.no_answer.cache_clear()
        yield found
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    network.no_answer.cache_clear()


WORDS = {
    "evaluate": ["evaluate", "no-such/model"],
    "generate": ["generate", "no-such/model", "--prompt", "a"],
    "a data set": ["pretrain", *TINY, "--max-steps", "2", "--output-dir", "run", "--dataset", "no-such/data"],
    "a tokenizer": [
        *["pretrain", *TINY, "--max-steps", "2", "--output-dir", "run", "--dataset", "lines.txt"],
        *["--tokenizer", "no-such/tokenizer"],
    ],
    "a teacher": [
        *["pretrain", *TINY, "--max-steps", "2", "--output-dir", "run", "--dataset", "lines.txt"],
        *["--teacher", "no-such/teacher"],
    ],
}


@pytest.mark.parametrize("case", WORDS)
def test_the_hub_is_asked_once(case, calls, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("lines.txt"))
    assert main(WORDS[case]) == 2
    line = one_line(capfd.readouterr().err)
    assert "no-such/" in line
    if case in ("evaluate", "generate"):
        assert "is no folder" in line and "does not answer" in line
    assert calls == [b"HEAD / HTTP/1.1"]
    assert not Path("run").exists()


@pytest.mark.parametrize("command", [["evaluate"], ["generate", "--prompt", "a"]])
def test_a_name_below_a_folder_that_is_there_is_no_repository(command, calls, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    assert main([command[0], "runs/nowhere", *command[1:]]) == 2
    assert "model folder runs/nowhere does not exist" in one_line(capfd.readouterr().err)
    assert calls == []


def test_what_is_here_asks_nobody(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("lines.txt"))
    for dataset in ("lines.txt", "*.txt", "retrieval", "digits", "python-docs", None):
        network.ask_for_data(dataset, "byte")
        network.ask_for_data(dataset, "example")
    assert calls == []
