"""`smt-hf serve` answers the `openai` client on loopback as the model generates."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import byte_ids, needs, save_checkpoint, tiny_model

from smt_hf import SMTForCausalLM

pytestmark = needs("fastapi", "openai", "uvicorn")

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
CHAT: list[Any] = [{"role": "user", "content": "Say something."}]
CHAT_AS_TEXT = "user: Say something.\nassistant: "
# A job in the background ignores Ctrl-C, and so would what it starts.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from smt_hf.cli import main
raise SystemExit(main())
"""


def checkpoint(folder: Path, chat_template: str | None) -> Path:
    """A model that says printable ASCII only, so that every token is a character of the answer."""
    model = tiny_model()
    model.generation_config.suppress_tokens = [*range(32), *range(127, 258)]
    return save_checkpoint(folder, model, chat_template)


@contextmanager
def server(folder: Path) -> Iterator[Any]:
    """An `openai` client of a server in a process of its own, which Ctrl-C ends."""
    import openai

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", COMMAND, "serve", str(folder), "--port", str(port)]
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://localhost:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        with openai.OpenAI(base_url=f"http://localhost:{port}/v1", api_key="-", max_retries=0) as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert code == 130


def greedy(folder: Path, prompt: str, max_new_tokens: int) -> str:
    model: Any = SMTForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        ids = model.generate(byte_ids(prompt), max_new_tokens=max_new_tokens, do_sample=False)
    return bytes(ids[0, len(prompt.encode()) :].tolist()).decode()


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("serve") / "chat", TEMPLATE)


@pytest.fixture(scope="module")
def chat_client(chat_folder: Path) -> Iterator[Any]:
    with server(chat_folder) as client:
        yield client


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("serve") / "plain", None)


@pytest.fixture(scope="module")
def plain_client(plain_folder: Path) -> Iterator[Any]:
    with server(plain_folder) as client:
        yield client


def test_the_list_of_models_names_the_one_served(chat_client, chat_folder):
    assert [model.id for model in chat_client.models.list()] == [str(chat_folder)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_is_what_the_model_generates(plain_client, plain_folder, stream):
    answer = plain_client.completions.create(
        model=str(plain_folder), prompt="One é and then", max_tokens=20, temperature=0, stream=stream
    )
    texts = [part.choices[0].text for part in answer] if stream else [answer.choices[0].text]
    assert "".join(texts) == greedy(plain_folder, "One é and then", 20)
    assert (len(texts) > 10) == stream


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_answer_is_what_the_model_generates_after_the_template(chat_client, chat_folder, stream):
    answer = chat_client.chat.completions.create(
        model=str(chat_folder), messages=CHAT, max_tokens=20, temperature=0, stream=stream
    )
    if stream:
        texts = [part.choices[0].delta.content or "" for part in answer]
    else:
        texts = [answer.choices[0].message.content]
    assert "".join(texts) == greedy(chat_folder, CHAT_AS_TEXT, 20)
    assert (len(texts) > 10) == stream


def test_answers_are_sampled_unless_the_temperature_is_0(plain_client, plain_folder):
    def answer(**options: Any) -> str:
        reply = plain_client.completions.create(
            model=str(plain_folder), prompt="Well", max_tokens=20, **options
        )
        return reply.choices[0].text

    assert len({answer(extra_body={"seed": seed}) for seed in range(3)}) == 3
    assert answer(extra_body={"seed": 1}) == answer(extra_body={"seed": 1})
    assert answer(temperature=0) == greedy(plain_folder, "Well", 20)


def test_a_model_without_a_chat_template_refuses_to_chat_in_one_sentence(plain_client, plain_folder):
    import openai

    with pytest.raises(openai.BadRequestError) as refused:
        plain_client.chat.completions.create(model=str(plain_folder), messages=CHAT)
    message = refused.value.body["message"]
    assert "no chat template" in message and "/v1/completions" in message
    assert message.endswith(".") and message.count(". ") == 0


def test_an_empty_prompt_is_refused_in_one_sentence(plain_client, plain_folder):
    import openai

    with pytest.raises(openai.BadRequestError, match="the input has no tokens; give at least one"):
        plain_client.completions.create(model=str(plain_folder), prompt="")
