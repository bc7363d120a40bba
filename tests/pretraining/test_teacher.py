"""The teacher: what a label may depend on, and that one causal pass gives many of them."""

import math
from typing import Any

import pytest
import torch
from tiny_training import CONTEXT, FUTURE, HEADS, TOKENS, VOCAB, WIDTH, random_ids, tiny_llama, tiny_teacher

from smt_hf.models.layers import Block
from smt_hf.pretraining.configuration_teacher import SMTTeacherConfig
from smt_hf.pretraining.teacher import SMTTeacher
from smt_hf.runs.arguments import ENCODER_TYPES

EPS = 1e-6


def rms_norm(x: torch.Tensor, weight: torch.Tensor | float = 1.0) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt() * weight


def turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary embedding (L, d) by complex numbers: i and i + d/2 are one number, turned by an angle."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * 10000.0 ** (-2 * torch.arange(half, dtype=x.dtype) / x.shape[-1])
    number = torch.complex(x[:, :half], x[:, half:]) * torch.exp(1j * angle)
    return torch.cat([number.real, number.imag], dim=-1)


def dense_block(block: Block, x: torch.Tensor, positions: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
    """One pre-norm block on one row (L, D), with the whole (L, L) mask and attention head by head."""
    q, k, v = (rms_norm(x, block.attention_norm.weight) @ w.T for w in block.qkv_proj.weight.chunk(3))
    heads = []
    for head in range(HEADS):
        part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        scores = turned(q[:, part], positions) @ turned(k[:, part], positions).T / math.sqrt(WIDTH / HEADS)
        weights = torch.exp(scores) * sees
        heads.append(weights / weights.sum(-1, keepdim=True) @ v[:, part])
    x = x + torch.cat(heads, dim=-1) @ block.o_proj.weight.T
    hidden = rms_norm(x, block.mlp_norm.weight) @ block.up_proj.weight.T
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + hidden @ block.down_proj.weight.T


def dense_causal_encoder(
    teacher: SMTTeacher, row: torch.Tensor, timesteps: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """[x_0 … x_max ; K registers for each label] under one mask built entry by entry.

    Returns the labels (n, K, D) and what comes out at the tokens.
    """
    length = max(timesteps) + 1
    items: list[tuple[str, int, int]] = [("token", t, t) for t in range(length)]
    kernel = teacher.convolution.weight[:, 0]  # (D, width), the last column for the token itself
    vectors = []
    for t in range(length):
        vector = teacher.embed_tokens.weight[row[t]].clone()
        for back in range(min(kernel.shape[1], t + 1)):
            vector += kernel[:, -1 - back] * teacher.embed_tokens.weight[row[t - back]]
        vectors.append(vector)
    for t in timesteps:
        for i in range(TOKENS):
            items.append(("register", t, max(t, 0) + i))
            start = vectors[t] if t >= 0 else torch.zeros(WIDTH)
            vectors.append(teacher.registers[i] + start)
    groups = [None] * length + [i // TOKENS for i in range(len(timesteps) * TOKENS)]
    sees = torch.zeros(len(items), len(items), dtype=torch.float64)
    for i, (_, t, _) in enumerate(items):
        for j, (kind, earlier, _) in enumerate(items):
            before = kind == "token" and earlier <= t
            sees[i, j] = before or (kind == "register" and groups[i] == groups[j])
    x = torch.stack(vectors)
    positions = torch.tensor([position for _, _, position in items], dtype=torch.float64)
    for block in teacher.encoder:
        assert isinstance(block, Block)
        x = dense_block(block, x, positions, sees)
    return rms_norm(x[length:]).view(len(timesteps), TOKENS, WIDTH), x[:length]


@torch.no_grad()
@pytest.mark.parametrize("timesteps", [[5], [-1], [0, 1, 2], [7, -1, 3, 3], list(range(-1, CONTEXT))])
def test_causal_encoder_equals_attention_over_the_whole_sequence_with_a_dense_mask(timesteps):
    teacher = tiny_teacher().double()
    ids = random_ids(2, CONTEXT + 3)
    labels, trunk = teacher.encode_with_trunk(ids, timesteps)
    for row in range(2):
        memory, hidden = dense_causal_encoder(teacher, ids[row], timesteps)
        # The cosine table is float32, and so is the memory.
        torch.testing.assert_close(labels[row], memory.float(), rtol=1e-4, atol=1e-5)
        if trunk is not None:
            torch.testing.assert_close(trunk[row], hidden, rtol=1e-4, atol=1e-5)
    assert (trunk is None) == (max(timesteps) < 0)


@torch.no_grad()
@pytest.mark.parametrize("timesteps", [[5], [-1], [7, -1, 3, 3], list(range(-1, CONTEXT))])
def test_projected_encoder_maps_the_trunk_of_the_causal_one_layer_by_layer(timesteps):
    teacher = tiny_teacher("projected").double()
    causal = tiny_teacher("causal").double()
    causal.load_state_dict({n: v for n, v in teacher.state_dict().items() if n != "projection.weight"})
    ids = random_ids(2, CONTEXT + 3)
    labels, trunk = teacher.encode_with_trunk(ids, timesteps)
    assert (trunk is None) == (max(timesteps) < 0)
    for row in range(2):
        states = []  # of the embeddings, then after 1 and 2 layers
        for depth in range(3):
            causal.encoder = teacher.encoder[:depth]
            states.append(dense_causal_encoder(causal, ids[row], [CONTEXT - 1])[1])
        for label, t in zip(labels[row], timesteps, strict=True):
            memory = teacher.registers.clone()
            if t >= 0:
                read = torch.cat([rms_norm(state[t]) for state in states])
                memory = memory + (teacher.projection.weight @ read).view(TOKENS, WIDTH)
            torch.testing.assert_close(label, rms_norm(memory).float(), rtol=1e-4, atol=1e-5)
        if trunk is not None:  # all that it can read, whatever is asked for
            torch.testing.assert_close(trunk[row], states[-1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("timesteps", [[5], [-1], [7, -1, 3, 3], list(range(-1, CONTEXT))])
def test_a_given_model_s_labels_are_a_map_of_its_hidden_states_layer_by_layer(timesteps):
    teacher = tiny_teacher("given")
    by_model = SMTTeacher.from_causal_lm(tiny_llama(), hidden_size=WIDTH, num_attention_heads=HEADS)
    assert by_model.config.vocab_size == VOCAB and by_model.projection.weight.shape == (4 * WIDTH, 48)
    assert teacher.given is not None and not any("given" in name for name in teacher.state_dict())
    ids = random_ids(2, CONTEXT + 3)
    states = teacher.given.model(ids, output_hidden_states=True).hidden_states
    assert len(states) == 2 and states[0].shape == (2, CONTEXT + 3, 24)
    labels, trunk = teacher.encode_with_trunk(ids, timesteps)
    assert trunk is None
    assert torch.equal(teacher.encode(ids, timesteps, states), labels)  # read before, whole
    for row in range(2):
        for label, t in zip(labels[row], timesteps, strict=True):
            memory = teacher.registers.clone()
            if t >= 0:
                read = torch.cat([rms_norm(state[row, t]) for state in states])
                memory = memory + (teacher.projection.weight @ read).view(TOKENS, WIDTH)
            torch.testing.assert_close(label, rms_norm(memory), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("timestep", [-1, 0, 4, CONTEXT - 1, CONTEXT + 2])
def test_bidirectional_encoder_equals_dense_attention_over_the_last_context(timestep):
    teacher = tiny_teacher("bidirectional").double()
    ids = random_ids(2, CONTEXT + 4)
    labels = teacher.encode(ids, [timestep])
    for row in range(2):
        seen = ids[row, max(0, timestep + 1 - CONTEXT) : timestep + 1]
        x = torch.cat([teacher.embed_tokens.weight[seen], teacher.registers])
        for block in teacher.encoder:
            assert isinstance(block, Block)
            every = torch.ones(len(x), len(x), dtype=torch.float64)
            x = dense_block(block, x, torch.arange(len(x), dtype=torch.float64), every)
        torch.testing.assert_close(labels[row, 0], rms_norm(x[-TOKENS:]).float(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_label_3_has_seen_x_0_to_x_3_and_never_x_4(encoder_type):
    teacher = tiny_teacher(encoder_type)
    ids = random_ids(1, 8)
    label = teacher.encode(ids, [3, 7])[:, 0]
    for position in range(8):
        other = ids.clone()
        other[0, position] = (ids[0, position] + 1) % VOCAB
        change = (teacher.encode(other, [3, 7])[:, 0] - label).abs().max()
        if position <= 3:
            assert change > 1e-3, position
        else:
            assert change < 1e-6, position


@torch.no_grad()
def test_the_trunk_is_causal():
    teacher = tiny_teacher()
    ids = random_ids(1, 8)
    other = ids.clone()
    other[0, 4] = (ids[0, 4] + 1) % VOCAB
    trunk, changed = (teacher.encode_with_trunk(x, [7, 2])[1] for x in (ids, other))
    assert trunk is not None and changed is not None and trunk.shape == (1, 8, WIDTH)
    moved = (trunk - changed).abs().amax(-1)[0]
    assert (moved[:4] < 1e-6).all() and (moved[4:] > 1e-3).all()


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
@pytest.mark.parametrize("timesteps", [[0, 1, 2, 3], [9, -1, 4, 4, 0]])
def test_many_labels_in_one_pass_equal_one_label_at_a_time(encoder_type, timesteps):
    teacher = tiny_teacher(encoder_type)
    ids = random_ids(3, 10)
    together = teacher.encode(ids, timesteps)
    assert together.shape == (3, len(timesteps), TOKENS, WIDTH)
    for i, t in enumerate(timesteps):
        torch.testing.assert_close(together[:, i], teacher.encode(ids, [t])[:, 0])
        torch.testing.assert_close(together[:, i], teacher.encode(ids[:, : t + 1], [t])[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_asking_for_the_trunk_does_not_change_the_labels(encoder_type):
    teacher = tiny_teacher(encoder_type)
    ids = random_ids(2, 9)
    labels, trunk = teacher.encode_with_trunk(ids, [2, 8])
    torch.testing.assert_close(labels, teacher.encode(ids, [2, 8]))
    assert (trunk is not None) == (encoder_type in ("causal", "projected"))


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_the_empty_label_is_the_same_for_every_row_and_any_length(encoder_type):
    teacher = tiny_teacher(encoder_type)
    labels = teacher.encode(random_ids(4, 6), [-1, 2])[:, 0]
    nothing = teacher.encode(torch.zeros(1, 0, dtype=torch.long), [-1])[:, 0]
    torch.testing.assert_close(labels, nothing.expand(4, -1, -1))


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_label_tokens_have_rms_one_in_float32(encoder_type, dtype):
    labels = tiny_teacher(encoder_type).to(dtype).encode(random_ids(2, 6), [-1, 0, 5])
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.pow(2).mean(-1), torch.ones(2, 3, TOKENS), rtol=0, atol=1e-4)


@torch.no_grad()
def test_decoded_logits_depend_on_the_memory_and_the_future_so_far_only():
    teacher = tiny_teacher()
    memory = teacher.encode(random_ids(1, 5), [4])[:, 0]
    future = random_ids(1, FUTURE - 1, seed=5)
    logits = teacher.decode(memory, future)
    assert logits.shape == (1, FUTURE, VOCAB)
    for position in range(FUTURE - 1):
        other = future.clone()
        other[0, position] = (future[0, position] + 1) % VOCAB
        change = (teacher.decode(memory, other) - logits).abs().amax(-1)[0]
        # Output i has read future tokens 0 … i − 1.
        assert (change[: position + 1] < 1e-6).all() and (change[position + 1 :] > 1e-4).all()
    for token in range(TOKENS):
        other_memory = memory.clone()
        other_memory[0, token] *= -1
        assert ((teacher.decode(other_memory, future) - logits).abs().amax(-1) > 1e-3).all()


@torch.no_grad()
def test_decoding_without_a_future_is_the_first_step_of_decoding_with_one():
    teacher = tiny_teacher()
    memory = teacher.encode(random_ids(3, 5), [4])[:, 0]
    with_future = teacher.decode(memory, random_ids(3, FUTURE - 1))
    alone = teacher.decode(memory)
    assert alone.shape == (3, 1, VOCAB)
    torch.testing.assert_close(alone[:, 0], with_future[:, 0])


@torch.no_grad()
def test_the_trunk_is_read_out_by_the_norm_and_head_of_the_decoder():
    teacher = tiny_teacher()
    hidden = torch.randn(2, 3, WIDTH)
    expected = rms_norm(hidden, teacher.readout.norm.weight) @ teacher.lm_head.weight.T
    torch.testing.assert_close(teacher.read_out(hidden), expected)


@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
@pytest.mark.parametrize("timesteps", [[-2], [6], [0, 6], [-2, 3], []])
def test_a_timestep_outside_the_sequence_is_refused(encoder_type, timesteps):
    with pytest.raises(ValueError) as error:
        tiny_teacher(encoder_type).encode(random_ids(1, 6), timesteps)
    assert str(timesteps) in str(error.value) and "-1 … 5" in str(error.value).replace("−", "-")


def test_a_timestep_past_the_context_is_refused_by_the_causal_encoder_only():
    ids = random_ids(1, CONTEXT + 1)
    with pytest.raises(ValueError, match=rf"timestep {CONTEXT} .*context_length {CONTEXT}"):
        tiny_teacher().encode(ids, [0, CONTEXT])
    assert tiny_teacher().encode(ids, [CONTEXT - 1]).isfinite().all()
    assert tiny_teacher("bidirectional").encode(ids, [CONTEXT]).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder_type": "recurrent"}, ["recurrent", "causal, projected, bidirectional"]),
        ({"encoder_type": "given"}, ["'given'", "from_causal_lm"]),
        ({"base_model_name_or_path": "gpt2"}, ["'causal'", "'gpt2'", "give both to 'given' alone"]),
        ({"context_length": 0}, ["context_length is 0"]),
        ({"future_length": -1}, ["future_length is -1"]),
        ({"num_attention_heads": 3}, ["hidden_size 128", "3 attention heads"]),
        # Accepted, they would be ignored.
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            ["linear", "'default' with a rope_theta"],
        ),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, ["yarn", "'default'"]),
        ({"rope_scaling": {"type": "linear"}}, ["no field 'rope_scaling'", "rope_parameters"]),
        ({"tie_word_embeddings": True}, ["no field 'tie_word_embeddings'"]),
        ({"hidden_act": "relu"}, ["no field 'hidden_act'"]),
        ({"attention_dropout": 0.1}, ["no field 'attention_dropout'"]),
    ],
)
def test_an_impossible_configuration_is_named(changes, named):
    # huggingface_hub wraps what a validator raises; the type is its own.
    with pytest.raises(Exception) as error:
        SMTTeacherConfig(**changes)
    assert all(text in str(error.value) for text in named)


@pytest.mark.parametrize("name", ["output_attentions", "is_encoder_decoder"])
def test_a_teacher_is_not_made_of_values_that_ask_for_what_it_does_not_do(name):
    config = tiny_teacher().config
    setattr(config, name, True)
    with pytest.raises(ValueError, match=f"{name}=True, which a teacher does not do"):
        SMTTeacher(config)


def test_the_base_of_the_rotary_embeddings_is_heeded_in_both_ways_to_give_it():
    field: dict[str, Any] = {"rope_theta": 500.0}
    configs = SMTTeacherConfig(**field), SMTTeacherConfig()
    assert configs[0].rope_parameters == {"rope_type": "default", "rope_theta": 500.0}
    assert configs[0].rope_parameters == SMTTeacherConfig(rope_parameters=field).rope_parameters
    bases = [SMTTeacher(config).rotary for config in configs]
    assert not torch.equal(bases[0](slice(0, 5))[0], bases[1](slice(0, 5))[0])


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_a_saved_teacher_gives_the_same_labels_and_logits(tmp_path, encoder_type):
    teacher = tiny_teacher(encoder_type)
    if teacher.given is not None:  # saved by itself, and found again by its name
        teacher.given.model.save_pretrained(tmp_path / "given")
        teacher.config.base_model_name_or_path = str(tmp_path / "given")
        tmp_path = tmp_path / "teacher"
    teacher.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = SMTTeacher.from_pretrained(tmp_path)
    ids = random_ids(2, 8)
    labels = teacher.encode(ids, [-1, 7])
    assert torch.equal(loaded.encode(ids, [-1, 7]), labels)
    assert torch.equal(loaded.decode(labels[:, 1], ids[:, :3]), teacher.decode(labels[:, 1], ids[:, :3]))
