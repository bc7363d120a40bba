"""Probes of finished runs: each figure beside one worked out from the run's own files."""

import json
from pathlib import Path

import pytest
import torch
from handmade_record import a_record

from smt_hf.cli import main
from smt_hf.data.tasks import make_task
from smt_hf.experiments import probes
from smt_hf.experiments.probes import probe, write_probes
from smt_hf.pretraining.teacher import SMTTeacher

SMALL = (
    "--preset", "tiny", "--disable-tqdm", "--num-evaluations", "1", "--checkpoint-every", "0",
    "--max-steps", "4",
)  # fmt: skip


def trained(folder: Path, dataset: str, *words: str) -> Path:
    run = folder / "run"
    command = ["pretrain", "--dataset", dataset, *SMALL, *words, "--output-dir", str(run)]
    assert main(command) == 0
    return run


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, list[str], str]]:
    """What is to be mapped: tokens read, groups, and their name."""
    asked: list[tuple[torch.Tensor, list[str], str]] = []
    monkeypatch.setattr(probes, "memory_map", lambda _model, *rest: asked.append(rest))
    return asked


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("retrieval"), "retrieval", "--sequence-length", "20", "--seed", "3")


@torch.no_grad()
def test_the_teacher_of_a_task_is_judged_on_the_runs_own_validation_rows(retrieval):
    found = probe(retrieval)
    teacher = SMTTeacher.from_pretrained(retrieval / "teacher").eval()
    rows = make_task("retrieval", 20, "validation", seed=3).__getitems__(range(64))
    logits = teacher.decode(teacher.encode(rows["input_ids"], [19])[:, 0])[:, 0]
    values = rows["shift_labels"][:, -1]
    assert found["teacher"]["accuracy"] == pytest.approx((logits.argmax(-1) == values).double().mean().item())
    assert found["teacher"]["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, values).item())
    assert [(part["start"], part["end"]) for part in found["teacher"]["by_horizon"]] == [(0, 20)]


@torch.no_grad()
def test_the_label_at_the_end_of_the_prompt_is_asked_on_the_runs_own_rows(retrieval):
    found = probe(retrieval)["prompt"]
    teacher = SMTTeacher.from_pretrained(retrieval / "teacher").eval()
    rows = make_task("retrieval", 20, "validation", seed=3).__getitems__(range(1024))
    x, values = rows["input_ids"], rows["shift_labels"][:, -1]
    right = teacher.decode(teacher.encode(x, [18])[:, 0], x[:, 19:])[:, -1].argmax(-1) == values
    assert found["prompt_length"] == 19 and found["label_holds"] == right.double().mean().item()


def test_retrieval_is_mapped_before_the_query_by_the_value_that_is_held(retrieval, maps):
    probe(retrieval)
    ((read, groups, by),) = maps
    rows = make_task("retrieval", 20, "validation", seed=3).__getitems__(range(512))
    assert torch.equal(read, rows["input_ids"][:, :19])
    assert groups == [str(value) for value in rows["shift_labels"][:, -1].tolist()] and "value" in by


def test_copies_are_mapped_after_three_symbols_by_the_first(tmp_path, maps):
    probe(trained(tmp_path, "reverse-copy", "--sequence-length", "20"))
    ((read, groups, by),) = maps
    assert read.shape == (512, 3) and by == "first symbol"
    assert groups == [str(value) for value in read[:, 0].tolist()]


def test_the_reach_of_smt_is_the_teachers_and_of_bptt_the_cells(retrieval, tmp_path):
    """Both of rows of the run's length; entry 0 is the last token, to which all is relative."""
    smt = probe(retrieval)["gradient_reach"]
    bptt = probe(trained(tmp_path, "retrieval", "--sequence-length", "20", "--method", "bptt"))
    assert len(smt) == len(bptt["gradient_reach"]) == 20 and smt[0] == bptt["gradient_reach"][0] == 1
    assert bptt["teacher"] is None and smt != bptt["gradient_reach"]
    assert all(value > 0 for value in smt)


def test_of_a_text_the_teacher_is_judged_within_its_context(tmp_path):
    corpus = tmp_path / "lines.txt"
    corpus.write_text("".join(f"Line {i} says {i} and {i + 1}.\n" for i in range(800)))
    run = trained(tmp_path, str(corpus))
    found = probe(run)
    assert [(part["start"], part["end"]) for part in found["teacher"]["by_horizon"]] == [(0, 32)]
    assert len(found["gradient_reach"]) == 32
    assert found["memory_map"] is None and found["images"] is None
    assert found["prompt"] is None  # a target at the first byte


def test_images_are_pixels_in_reading_order_with_the_given_half_kept(tmp_path):
    pytest.importorskip("sklearn")
    probes_of_run = probe(trained(tmp_path, "digits"))
    found = probes_of_run["images"]
    assert probes_of_run["prompt"] is None  # a target at the first pixel
    assert (found["height"], found["width"], found["levels"], found["given"]) == (8, 8, 17, 32)
    for name in ("generated", "originals", "completed"):
        assert len(found[name]) == 8 and all(len(image) == 64 for image in found[name])
        assert all(0 <= pixel < 17 for image in found[name] for pixel in image)
    for original, completed in zip(found["originals"], found["completed"], strict=True):
        assert original[:32] == completed[:32] and original != completed


def test_probes_are_written_once_and_as_plain_json(retrieval, monkeypatch):
    write_probes(retrieval)
    text = (retrieval / "probes.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found.keys() == {"format", "teacher", "prompt", "gradient_reach", "memory_map", "images"}
    assert found["format"] == 1 and found["images"] is None and len(found["memory_map"]["points"]) == 512
    monkeypatch.setattr(probes, "probe", lambda folder: pytest.fail("a run was measured again"))
    write_probes(retrieval)
    assert (retrieval / "probes.json").read_text() == text


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        a_record(status="running").write(tmp_path)
        with pytest.raises(ValueError, match=r"holds no run|is running"):
            probe(folder)


def test_a_run_without_its_teacher_leaves_out_what_needs_it(retrieval, tmp_path):
    import shutil

    shutil.copytree(retrieval, tmp_path / "run", ignore=shutil.ignore_patterns("teacher", "probes.json"))
    found = probe(tmp_path / "run")
    assert found["teacher"] is None and found["gradient_reach"] == []
    assert found["memory_map"] is not None
