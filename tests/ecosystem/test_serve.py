"""`smt-hf serve` answers the `openai` client on loopback as the model generates."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import byte_ids, needs, save_checkpoint, tiny_model

from smt_hf import SMTForCausalLM
from smt_hf.cli import main

pytestmark = needs("openai", "uvicorn")

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
def server(folder: Path, *options: str, end: signal.Signals = signal.SIGINT) -> Iterator[Any]:
    """An `openai` client of a server in a process of its own, which a signal ends within seconds."""
    import openai

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", COMMAND, "serve", str(folder), "--port", str(port), *options]
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
            client.process = process
            yield client
    finally:
        process.send_signal(end)
        code = process.wait(timeout=20)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert code in {signal.SIGINT: [130], signal.SIGTERM: [0, -15], signal.SIGKILL: [-9]}[end]


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

    with pytest.raises(openai.BadRequestError, match="the prompt is empty; give at least one"):
        plain_client.completions.create(model=str(plain_folder), prompt="")


def test_every_request_has_its_own_seed_also_at_the_same_time(plain_client, plain_folder):
    def answer(seed: int) -> str:
        reply = plain_client.completions.create(
            model=str(plain_folder), prompt="Well", max_tokens=40, extra_body={"seed": seed}
        )
        return reply.choices[0].text

    alone = [answer(seed) for seed in range(4)]
    assert len(set(alone)) == 4
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, [0, 1, 2, 3] * 2)) == alone * 2


def test_an_answer_stops_where_it_is_told_to(plain_client, plain_folder):
    whole = greedy(plain_folder, "One", 30)
    for stop in (whole[4:6], [whole[4:6]], []):
        reply = plain_client.completions.create(
            model=str(plain_folder), prompt="One", max_tokens=30, temperature=0, stop=stop
        )
        said = reply.choices[0].text
        assert said == (whole[: whole.index(whole[4:6])] if stop else whole)


@pytest.mark.parametrize(
    "options", [{"n": 65}, {"logprobs": 21}, {"suffix": "x"}, {"best_of": 2}, {"max_tokens": 10**9}]
)
def test_what_would_be_ignored_is_refused(plain_client, plain_folder, options):
    import openai

    with pytest.raises(openai.BadRequestError) as refused:
        plain_client.completions.create(model=str(plain_folder), prompt="One", **options)
    assert next(iter(options)) in refused.value.body["message"]


def test_lists_of_prompts_choices_logprobs_and_echo_reach_the_client(plain_client, plain_folder):
    reply = plain_client.completions.create(
        model=str(plain_folder), prompt=["One", "Two"], n=2, logprobs=1, echo=True, max_tokens=6, temperature=0
    )
    wanted = [prompt + greedy(plain_folder, prompt, 6) for prompt in ("One", "One", "Two", "Two")]
    assert [choice.text for choice in reply.choices] == wanted
    assert all("".join(choice.logprobs.tokens) == choice.text for choice in reply.choices)


def test_a_template_of_the_client_is_refused(plain_client, plain_folder):
    import openai

    with pytest.raises(openai.BadRequestError, match="chat_template_kwargs"):
        plain_client.chat.completions.create(
            model=str(plain_folder), messages=CHAT, extra_body={"chat_template_kwargs": {"chat_template": "x"}}
        )


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_goes_on_from_the_one_before(chat_client, chat_folder, stream):
    options = {"model": str(chat_folder), "temperature": 0, "max_output_tokens": 8}
    first = chat_client.responses.create(input="Say something.", **options)
    assert first.output_text == greedy(chat_folder, CHAT_AS_TEXT, 8)
    told = chat_client.responses.create(input="More.", previous_response_id=first.id, stream=stream, **options)
    if stream:
        *_, last = told
        told = last.response
    whole = f"{CHAT_AS_TEXT}{first.output_text}\nuser: More.\nassistant: "
    assert told.output_text == greedy(chat_folder, whole, 8)
    assert told.usage.input_tokens_details.cached_tokens >= len(CHAT_AS_TEXT)


def test_many_streams_at_once_are_each_what_they_are_alone(plain_client, plain_folder):
    def answer(number: int) -> bool:
        stream = plain_client.completions.create(
            model=str(plain_folder), prompt=f"Line {number}", max_tokens=30, temperature=0, stream=True
        )
        return "".join(part.choices[0].text for part in stream) == greedy(plain_folder, f"Line {number}", 30)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(answer, range(32)))


def test_answers_under_way_end_before_the_server_does_and_new_ones_are_refused(tmp_path):
    import openai

    folder = checkpoint(tmp_path / "draining", None)
    with server(folder, end=signal.SIGTERM) as client, ThreadPoolExecutor(1) as pool:
        stream = client.completions.create(model=str(folder), prompt="x", max_tokens=4000, stream=True)
        next(iter(stream))
        client.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)

        def refused() -> bool:
            with pytest.raises((openai.InternalServerError, openai.APIConnectionError)):
                client.completions.create(model=str(folder), prompt="y", max_tokens=1)
            return True

        told = pool.submit(refused)
        assert sum(len(part.choices[0].text) for part in stream) == 3999
        assert told.result()


def test_a_conversation_goes_on_after_the_server_was_killed(tmp_path):
    folder = checkpoint(tmp_path / "killed", None)
    store = ("--state-store", f"sqlite:///{tmp_path}/states.db")
    prompt = "A long text that was read once. " * 8
    for number, end in enumerate((signal.SIGKILL, signal.SIGINT)):
        with server(folder, *store, end=end) as client:
            reply = client.completions.create(model=str(folder), prompt=prompt, max_tokens=8, temperature=0)
            assert reply.choices[0].text == greedy(folder, prompt, 8)
            assert reply.usage.prompt_tokens_details.cached_tokens == number * len(prompt)
            time.sleep(0.3)  # states are written behind the answer


def test_a_key_keeps_strangers_out(tmp_path):
    import openai

    folder = checkpoint(tmp_path / "locked", None)
    with server(folder, "--api-key", "sesame") as client:
        with pytest.raises(openai.AuthenticationError):
            client.completions.create(model=str(folder), prompt="x", max_tokens=1)
        client.api_key = "sesame"
        assert client.completions.create(model=str(folder), prompt="x", max_tokens=1).choices[0].text
    assert "sesame" not in (folder / "log.txt").read_text()


def test_the_server_goes_on_after_requests_that_would_stop_it(plain_client, plain_folder):
    import openai

    for path in ("/reset", "/load_model"):
        with pytest.raises(openai.NotFoundError):
            plain_client.post(f"{path}", body={"model": "/"}, cast_to=object)
    reply = plain_client.completions.create(model=str(plain_folder), prompt="One", max_tokens=5, temperature=0)
    assert reply.choices[0].text == greedy(plain_folder, "One", 5)


def test_a_prompt_of_several_requests_is_limited_and_so_is_the_time(tmp_path):
    import openai

    folder = checkpoint(tmp_path / "limited", TEMPLATE)
    limits = ("--max-prompt", "40", "--max-seconds", "0.2", "--max-tokens", "100000")
    with server(folder, *limits) as client:
        with pytest.raises(openai.BadRequestError, match="41 tokens"):
            client.completions.create(model=str(folder), prompt="x" * 41)
        with pytest.raises(openai.BadRequestError, match="tokens"):
            client.chat.completions.create(model=str(folder), messages=[{"role": "user", "content": "x" * 40}])
        with pytest.raises(openai.InternalServerError, match=r"0\.2 seconds"):
            client.completions.create(model=str(folder), prompt="x", max_tokens=100000)


def test_ctrl_c_ends_it_while_it_writes_and_a_client_that_left_is_not_written_for(tmp_path):
    import openai

    folder = checkpoint(tmp_path / "long", None)
    with server(folder, "--max-tokens", "10000000") as client:
        with pytest.raises(openai.APITimeoutError):
            client.completions.create(model=str(folder), prompt="x", max_tokens=10**7, timeout=1)
        client.completions.create(model=str(folder), prompt="x", max_tokens=5, timeout=20)
        stream = client.completions.create(model=str(folder), prompt="x", max_tokens=10**7, stream=True)
        assert next(iter(stream))


def test_a_port_in_use_is_told_in_one_sentence(plain_folder, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(plain_folder), "--host", "127.0.0.1", "--port", str(port)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("smt-hf serve: error: ") and f"--port {port}" in line
    assert main(["serve", str(plain_folder), "--host", "nowhere.invalid"]) == 2
    assert "--host nowhere.invalid" in capfd.readouterr().err
