"""A state saved to a file goes on elsewhere as if nothing had happened, and only with its own model."""

import pytest
import torch
import warm
from safetensors.torch import load_file, save_file
from tiny_models import BUILT_IN_CELLS, TOKENS, WIDTH, generate, is_one_sentence, random_ids, tiny_model
from transformers import DynamicCache


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_a_loaded_state_goes_on_bit_for_bit(cell, tmp_path):
    model = tiny_model(cell)
    ids = random_ids(3, 12)
    state = model(ids[:, :7]).cache
    model.save_state(state, tmp_path / "state.safetensors")
    loaded = model.load_state(tmp_path / "state.safetensors")
    assert loaded.get_seq_length() == 7
    expected = model(ids[:, 7:], cache=state).logits
    assert torch.equal(model(ids[:, 7:], cache=loaded).logits, expected)


@torch.no_grad()
def test_another_process_goes_on_from_the_file(tmp_path):
    model = tiny_model()
    ids = random_ids(1, 9)
    model.save_pretrained(tmp_path / "model")
    model.save_state(model(ids[:, :6]).cache, tmp_path / "state")
    program = (
        "import sys, torch; from smt_hf import SMTForCausalLM\n"
        "model = SMTForCausalLM.from_pretrained(sys.argv[1] + '/model')\n"
        "state = model.load_state(sys.argv[1] + '/state')\n"
        f"ids = torch.tensor({ids[:, 6:].tolist()})\n"
        "print(model(ids, cache=state).logits.double().sum().item())"
    )
    run = warm.run(program, tmp_path)
    assert run.returncode == 0, run.stderr
    expected = model(ids).logits[:, 6:].double().sum().item()
    assert float(run.stdout) == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_a_fork_to_a_batch_generates_what_each_whole_prompt_does(tmp_path):
    model = tiny_model("elman")
    prompt, turns = random_ids(1, 9), random_ids(3, 4, seed=5)
    model.save_state(model(prompt).cache, tmp_path / "state")
    state = model.load_state(tmp_path / "state")
    state.batch_repeat_interleave(3)
    mask = torch.ones(3, 9 + 4, dtype=torch.long)
    options = dict(max_new_tokens=6, do_sample=False)
    out = generate(model, turns, attention_mask=mask, cache=state, **options)
    whole = generate(model, torch.cat([prompt.expand(3, -1), turns], dim=1), **options)
    assert torch.equal(out[:, 4:], whole[:, 13:])


@torch.no_grad()
def test_the_file_is_a_few_kilobytes_however_much_was_read(tmp_path):
    model = tiny_model()
    sizes = set()
    for length in (1, 1000):
        model.save_state(model(random_ids(1, length), logits_to_keep=1).cache, tmp_path / f"{length:04}")
        sizes.add((tmp_path / f"{length:04}").stat().st_size // 64)
    assert len(sizes) == 1
    assert max(sizes) * 64 < (2 * 4 + 2) * TOKENS * WIDTH + 512  # two tensors, and one in half precision


@torch.no_grad()
def test_the_state_of_a_half_precision_model_is_one_of_the_same_model(tmp_path):
    model = tiny_model()
    model.save_state(model(random_ids(1, 3)).cache, tmp_path / "state")
    half = tiny_model().bfloat16()
    assert half.load_state(tmp_path / "state").get_seq_length() == 3


@torch.no_grad()
def test_a_state_from_before_a_fine_tuning_is_refused_though_the_initial_memory_is_the_same(tmp_path):
    model = tiny_model()
    model.save_state(model(random_ids(1, 3)).cache, tmp_path / "state")
    for name, weight in model.named_parameters():
        if "initial_memory" not in name:
            weight.add_(0.3 * weight.std(correction=0) * torch.randn_like(weight))
    with pytest.raises(ValueError) as error:
        model.load_state(tmp_path / "state")
    assert is_one_sentence(error.value, tmp_path / "state", "other weights", "make it again")


@torch.no_grad()
def test_a_state_of_an_older_version_and_one_before_tokens_were_added_load(tmp_path):
    model = tiny_model()
    model.save_state(model(random_ids(1, 3)).cache, tmp_path / "state")
    tensors = load_file(tmp_path / "state")
    about = {"format": "smt_state", "version": "1", "num_tokens": "3"}
    save_file(
        {name: tensors[name] for name in ("memory", "initial_memory")}, tmp_path / "older", metadata=about
    )
    assert model.load_state(tmp_path / "older").get_seq_length() == 3
    bytes_model = tiny_model(vocab_size=258)
    bytes_model.save_state(bytes_model(random_ids(1, 3)).cache, tmp_path / "bytes")
    bytes_model.resize_token_embeddings(300)
    assert bytes_model.load_state(tmp_path / "bytes").get_seq_length() == 3


@torch.no_grad()
def test_nothing_is_overwritten_unasked(tmp_path):
    model = tiny_model()
    path = tmp_path / "state"
    model.save_state(model(random_ids(1, 3)).cache, path)
    before = path.read_bytes()
    longer = model(random_ids(1, 5)).cache
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save_state(longer, path)
    assert path.read_bytes() == before
    model.save_state(longer, path, overwrite=True)
    assert model.load_state(path).get_seq_length() == 5
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


@torch.no_grad()
def test_what_cannot_be_a_state_of_this_model_is_refused_in_one_sentence(tmp_path):
    model = tiny_model()
    state = model(random_ids(1, 3)).cache
    model.save_state(state, tmp_path / "state")

    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.load_state(tmp_path / "nowhere")
    (tmp_path / "text").write_text("no safetensors")
    tensors = load_file(tmp_path / "state")
    save_file(tensors, tmp_path / "plain")
    newer = {"format": "smt_state", "version": "99", "num_tokens": "3"}
    save_file(tensors, tmp_path / "newer", metadata=newer)
    for name, named in (("text", "not a saved state"), ("plain", "not a saved state"), ("newer", "99")):
        with pytest.raises(ValueError) as error:
            model.load_state(tmp_path / name)
        assert is_one_sentence(error.value, tmp_path / name, named)
    for other in (tiny_model(seed=1), tiny_model(num_memory_tokens=2, num_hidden_layers=1)):
        with pytest.raises(ValueError) as error:
            other.load_state(tmp_path / "state")
        assert is_one_sentence(error.value, "another model")
    with pytest.raises(ValueError, match="read nothing"):
        model.save_state(DynamicCache(config=model.config), tmp_path / "empty")
