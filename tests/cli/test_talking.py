"""`smt-hf generate` and `smt-hf chat` keep a conversation as a state, in a file or in memory."""

import io
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_commands import one_line

from smt_hf import CELLS, SMTConfig, SMTForCausalLM
from smt_hf.cli import build_parser, main
from smt_hf.data import byte_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says letters."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_memory_tokens": 2, "num_attention_heads": 2}
    model = SMTForCausalLM(SMTConfig(num_readout_layers=1, eos_token_id=256, pad_token_id=257, **sizes))
    letters = torch.zeros(258).index_fill_(0, torch.arange(97, 123), 1.0)
    model.lm_head.weight.data *= letters[:, None]
    path = tmp_path_factory.mktemp("talking") / "model"
    model.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def greedy(folder: Path, *words: str, tokens: int = 6) -> list[str]:
    return [str(folder), "--max-new-tokens", str(tokens), "--temperature", "0", *words]


def test_a_text_in_two_halves_is_the_text(folder, tmp_path, monkeypatch, capsys):
    state = str(tmp_path / "half.safetensors")
    assert main(["generate", *greedy(folder, "--prompt", "One", tokens=12)]) == 0
    whole = capsys.readouterr().out.strip()
    typed(monkeypatch, "One")
    assert main(["generate", *greedy(folder, "--save-state", state)]) == 0
    first = capsys.readouterr().out.strip()
    assert whole.startswith(first) and len(first) == 9
    # The state has read the first half whole: what follows is its next letter.
    assert main(["generate", *greedy(folder, "--state", state, "--prompt", whole[9], tokens=5)]) == 0
    assert first + capsys.readouterr().out.strip() == whole
    assert main(["generate", *greedy(folder, "--prompt", "One", "--save-state", state)]) == 2
    assert "exists; name a new file" in capsys.readouterr().err


def test_bytes_that_are_no_text_are_told_in_one_sentence(folder, monkeypatch, capfd):
    typed(monkeypatch, "One\udcff")  # how Python reads the byte 0xff
    assert main(["generate", *greedy(folder)]) == 2
    assert "'One\\udcff' has a byte that is no UTF-8" in one_line(capfd.readouterr().err)
    typed(monkeypatch, "One\udcff\nOne\n/quit\n")
    assert main(["chat", *greedy(folder)]) == 0  # and goes on
    assert capfd.readouterr().out.count("is no UTF-8") == 1


def test_a_model_that_is_not_to_keep_its_state_keeps_it_all_the_same(folder, tmp_path, monkeypatch, capsys):
    """Its own `use_cache=False` is of `generate` in Python; a conversation is nothing without the state."""
    model = SMTForCausalLM.from_pretrained(folder)
    model.generation_config.use_cache = False
    model.save_pretrained(tmp_path / "without")
    byte_tokenizer().save_pretrained(tmp_path / "without")
    said = []
    for place in (folder, tmp_path / "without"):
        state = tmp_path / f"{place.name}.safetensors"
        assert main(["generate", *greedy(place, "--prompt", "One", "--save-state", str(state))]) == 0
        assert main(["generate", *greedy(place, "--prompt", "two", "--state", str(state))]) == 0
        typed(monkeypatch, "Hello\nMore\n")
        assert main(["chat", *greedy(place)]) == 0
        said.append((capsys.readouterr().out, model.load_state(state).get_seq_length()))
    assert said[0] == said[1] and said[0][1] == 9  # 3, and all of the 6 that were said


def test_chat_remembers_saves_forks_and_goes_on_after_a_mistake(folder, tmp_path, monkeypatch, capsys):
    state = tmp_path / "talk.safetensors"
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    lines = [
        *("Hello", "/fork", "More", "/back", "More", "/reset", "More", "/nope", "/save", "/load nowhere.st"),
        *(f"/load {tmp_path}/other.safetensors", "", f"/save {state}", "/back", f"/load {state}", "/help"),
    ]
    typed(monkeypatch, "\n".join(lines) + "\n")
    assert main(["chat", *greedy(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    answers = [before for before, after in pairwise(out) if after.startswith("[")]
    read = [line for line in out if line.startswith("[")]
    assert answers[1] == answers[2] and read[1] == read[2] != read[3]
    assert "[10 tokens read; the state is 128 bytes]" in read[0]  # 5, and 5 of the 6 that were said
    for said in (
        "/nope is no command",
        "/save needs a file",
        "there is no state at nowhere.st",
        "is not a saved",
    ):
        assert any(said in line for line in out)
    model = SMTForCausalLM.from_pretrained(folder)
    assert model.load_state(state).get_seq_length() == 10


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_the_most_probable_tokens_are_not_sampled_from(command, capsys, monkeypatch):
    typed(monkeypatch, "Hello")
    words = ["--temperature", "0", "--top-k", "0", "--top-p", "1", "--seed", "0"]
    assert main([command, "no/model/is/read", *words]) == 2
    said = "--temperature is 0, which samples nothing; leave out --top-k, --top-p, --seed."
    assert capsys.readouterr().err == f"smt-hf {command}: error: {said}\n"


def test_a_cell_is_that_of_the_model(folder, capsys, monkeypatch):
    words = [*greedy(folder, "--prompt", "One"), "--cell"]
    assert main(["generate", *words, "lstm"]) == 2
    said = "--cell is 'lstm', and the model's cell is 'gru'; leave it out."
    assert capsys.readouterr().err == f"smt-hf generate: error: {said}\n"
    # The same class by another name, as a module of one's own may register it.
    same = f"{CELLS['gru'].__module__}:{CELLS['gru'].__name__}"
    monkeypatch.setitem(CELLS, same, CELLS["gru"])
    for name in ("gru", same):
        assert main(["generate", *words, name]) == 0


def test_sampling_that_is_not_said_is_that_of_the_help(folder, capsys):
    words = [str(folder), "--prompt", "One", "--max-new-tokens", "20", "--temperature", "2"]
    told = []
    for said in ([], ["--top-k", "50", "--top-p", "1", "--seed", "0"], ["--seed", "1"]):
        assert main(["generate", *words, *said]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] != told[2]
    for command, tokens in {"generate": 200, "chat": 100}.items():
        assert build_parser().parse_args([command]).max_new_tokens == tokens
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert f"tokens to add [{tokens}]" in shown and "0: all [50]" in shown


def test_chat_speaks_through_the_template_of_its_tokenizer(folder, tmp_path, monkeypatch, capsys):
    SMTForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "chatty")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}u:{{ m.content }}\na:{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "chatty")
    typed(monkeypatch, "Hi\n/quit\nHi\n")
    assert main(["chat", *greedy(tmp_path / "chatty")]) == 0
    chatted = capsys.readouterr().out
    assert main(["generate", *greedy(folder, "--prompt", "u:Hi\na:")]) == 0
    assert capsys.readouterr().out.strip().removeprefix("u:Hi\na:") in chatted
    assert "no chat template" not in chatted and chatted.count("tokens read") == 1
