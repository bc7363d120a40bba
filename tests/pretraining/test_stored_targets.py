"""A given teacher reads a corpus once; batches then carry what it said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_soft_targets import BYTES, causal_lm, save_teacher, spec

from smt_hf import RunSpec, build
from smt_hf.data import load_data
from smt_hf.pretraining import stored_targets
from smt_hf.pretraining.soft_targets import SoftTargets
from smt_hf.pretraining.stored_targets import IDS, LOGPROBS, read_once, spread

LENGTH, TOP = 24, 5
CHECKED = 2  # rows by which a teacher is checked


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    return str(path)


@pytest.fixture
def windows(text, tmp_path):
    return load_data(text, sequence_length=LENGTH, cache_dir=tmp_path).train


@pytest.fixture
def batches(monkeypatch):
    """What the teacher has read, one entry a batch."""
    read: list[list[list[int]]] = []
    plain = SoftTargets.__call__

    def note(self, input_ids):
        read.append(input_ids.tolist())
        return plain(self, input_ids)

    monkeypatch.setattr(SoftTargets, "__call__", note)
    return read


@pytest.fixture
def asked(batches):
    """How many rows the teacher has read."""
    return lambda: sum(map(len, batches))


def teacher() -> SoftTargets:
    return SoftTargets(causal_lm("llama"), BYTES)


def test_each_position_has_what_the_teacher_says_after_the_tokens_before_it(windows):
    """By a plain loop over rows of 24: each begins 3 before its first answer, the last ends with the corpus."""
    taught, model = read_once(teacher(), windows, TOP), teacher()
    tokens = torch.from_numpy(np.asarray(windows._tokens).astype(np.int64))
    end, done = len(tokens) - 1, 0
    wanted: list[torch.Tensor] = []
    while done < end:
        start = min(max(0, done - 3), end - LENGTH)
        wanted.append(model(tokens[None, start : start + LENGTH])[0, done - start :])
        done = start + LENGTH
    top = torch.cat(wanted).topk(TOP)
    rows = [0, 5, len(windows) - 1]
    batch = taught.__getitems__(rows)
    for name, tensor in windows.__getitems__(rows).items():
        assert torch.equal(batch[name], tensor)
    for row, first in enumerate(rows):
        assert torch.equal(batch[IDS][row], top.indices[first : first + LENGTH])
        torch.testing.assert_close(batch[LOGPROBS][row], top.values[first : first + LENGTH], atol=4e-3, rtol=0)
    short = taught.at_length(8).__getitems__([5])
    assert torch.equal(short[IDS][0], batch[IDS][1, :8])


def test_the_rest_of_a_distribution_has_equal_parts():
    p = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.06, 0.04]])
    said = p.log().topk(2)
    found = spread(said.indices, said.values, 6).exp()
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.2, 0.075, 0.075, 0.075, 0.075]]))
    sure = spread(torch.tensor([[3, 1]]), torch.tensor([[0.0, -65504.0]]), 6).exp()
    assert sure.sum() == pytest.approx(1) and sure[0, 3] > 0.999 and sure.isfinite().all()


def test_the_corpus_is_read_once_by_each_teacher(windows, asked):
    read_once(teacher(), windows, TOP)
    before = asked()
    read_once(teacher(), windows, TOP)
    assert asked() - before <= CHECKED
    other = teacher()
    with torch.no_grad():
        other.model.lm_head.weight[0, 0] += 1
    read_once(other, windows, TOP)
    assert asked() > before + 10


def test_a_reading_that_was_killed_goes_on_to_the_same_file(windows, batches):
    """In the same batches, since rounding depends on what is computed at once."""
    whole = read_once(teacher(), windows, TOP)
    part = whole.targets.with_suffix(".part")
    content, of_all = whole.targets.read_bytes(), list(batches)
    batches.clear()
    whole.targets.unlink()
    part.write_bytes(content[: len(content) // 2 + 7])  # in the middle of a record
    again = read_once(teacher(), windows, TOP)
    assert again.targets.read_bytes() == content
    assert 3 < len(batches) < 0.7 * len(of_all) and not part.exists()
    assert [batch for batch in batches if batch not in of_all] == []


def test_a_disk_without_room_is_told_before_the_reading(windows, asked, monkeypatch):
    usage = stored_targets.shutil.disk_usage(windows.path.parent)
    monkeypatch.setattr(stored_targets.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"teacher_top 5 takes \d+,\d+ bytes in .* has room for 1,000"):
        read_once(teacher(), windows, TOP)
    assert asked() <= CHECKED
    with pytest.raises(ValueError, match="teacher_top is 258, and there are 258 tokens"):
        read_once(teacher(), windows, BYTES)


@pytest.mark.parametrize("changes", [{"method": "bptt"}, {"method": "smt", "dmt_fraction": 0.5}])
def test_a_run_from_what_was_stored_equals_one_that_asks_at_every_step(tmp_path, text, changes, monkeypatch):
    """All but one token are stored, and rows are as the teacher reads them where they begin the corpus."""
    monkeypatch.setenv("SMT_HF_CACHE", str(tmp_path / "cache"))
    folder = save_teacher(tmp_path / "teacher", causal_lm("llama"))
    monkeypatch.setattr(
        "smt_hf.pretraining.batching.torch.randint",
        lambda size, shape, generator: torch.zeros(shape, dtype=torch.long),
    )
    losses = []
    for top in (None, BYTES - 1):
        more = {} if top is None else {"teacher_top": top}
        record = build(
            spec(tmp_path, text, folder, output_dir=str(tmp_path / f"run{top}"), **changes, **more)
        ).train()
        losses.append(record.final["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


def test_what_is_stored_needs_a_teacher(tmp_path, text):
    with pytest.raises(ValueError, match="teacher_top is 4, and there is no teacher; give --teacher too"):
        build(RunSpec.of(dataset=text, preset="tiny", max_steps=1, teacher_top=4, output_dir=tmp_path / "run"))
