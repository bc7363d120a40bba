# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""pretrain, evaluate, generate and compare, end to end, on a small text and on retrieval."""

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from tiny_commands import TINY, write_corpus
from transformers import AutoModelForCausalLM, AutoTokenizer

import smt_hf
import smt_hf.models.cells as cells
from smt_hf.cli import build_parser, main, quickstart
from smt_hf.cli.pretrain import spec_of
from smt_hf.data import RetrievalTask, load_data
from smt_hf.pretraining.assembly import build
from smt_hf.runs.folder import RunFolder
from smt_hf.runs.spec import RunSpec

HAND_MADE_CELL = """\
import torch
from smt_hf import MemoryCell


class LeakyCell(MemoryCell):
    def __init__(self, config):
        super().__init__(config)
        self.write = torch.nn.Linear(config.hidden_size, config.hidden_size)

    def step(self, memory, inputs):
        return memory + torch.tanh(self.write(inputs))[:, None]
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "lines.txt")


@pytest.fixture(scope="module")
def text_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on text: 8 steps of a tiny GRU, half of them DMT."""
    folder = tmp_path_factory.mktemp("runs") / "text"
    words = ["--dataset", str(corpus), "--max-steps", "8", "--checkpoint-every", "3", "--seed", "4"]
    command = ["pretrain", *words, *TINY, "--output-dir", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["/usr/bin/smt-hf", *command])
        assert main(command) == 0
    return folder


@pytest.fixture(scope="module")
def task_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on retrieval, by BPTT, with a length curriculum."""
    folder = tmp_path_factory.mktemp("runs") / "task"
    words = ["--dataset", "retrieval", "--sequence-length", "24", "--max-steps", "6", "--method", "bptt"]
    more = ["--curriculum-start-length", "8", "--checkpoint-every", "0", "--output-dir", str(folder)]
    assert main(["pretrain", *words, *TINY, *more]) == 0
    return folder


# ---------------------------------------------------------------- pretrain


def test_a_run_leaves_exactly_what_the_design_says(text_run):
    files = {str(path.relative_to(text_run)) for path in text_run.rglob("*") if path.is_file()}
    step = {"model.safetensors", "teacher.safetensors", "optimizer.pt", "state.json"}
    code = (Path(smt_hf.__file__).parent / "models").glob("*.py")
    assert files == {
        "config.json",
        "model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "run.json",
        "metrics.jsonl",
        "teacher/config.json",
        "teacher/model.safetensors",
        *(path.name for path in code if path.name != "__init__.py"),
        *(f"checkpoints/step_{number:07d}/{name}" for number in (6, 8) for name in step),
    }


def test_a_baseline_leaves_no_teacher_and_no_empty_folder(task_run):
    names = {path.name for path in task_run.iterdir()}
    assert "teacher" not in names and "checkpoints" not in names


def test_run_json_records_the_run(text_run, corpus):
    record = json.loads((text_run / "run.json").read_text())
    assert (record["status"], record["method"], record["cell"], record["spec"]["preset"]) == (
        "finished", "smt", "gru", "tiny",
    )  # fmt: skip
    assert record["seed"] == record["spec"]["seed"] == 4
    assert [phase["name"] for phase in record["phases"]] == ["smt", "dmt"]
    assert record["steps"] == 8 and record["tokens"] == 8 * 16 * 40
    assert record["sequential_steps"] == 4 * 1 + 4 * 16
    assert record["seconds"] > 0
    assert record["command"] == ["smt-hf", *sys_words(text_run, corpus)]
    data = load_data(str(corpus), sequence_length=40)
    assert record["dataset"] == str(corpus) and record["data_fingerprint"] == data.fingerprint
    # The build ("+cu130") is in one of the two alone.
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "python" in record["versions"]
    assert record["versions"]["smt-hf"] == smt_hf.__version__
    assert record["model"]["hidden_size"] == 32 and record["teacher"]["future_length"] == 8
    assert record["parameters"] == AutoModelForCausalLM.from_pretrained(text_run).num_parameters()
    assert record["state_bytes"] == 4 * 2 * 32
    assert math.isfinite(record["final"]["loss"]) and record["final"]["by_horizon"][-1]["end"] == 64


def sys_words(folder: Path, corpus: Path) -> list[str]:
    words = ["--dataset", str(corpus), "--max-steps", "8", "--checkpoint-every", "3", "--seed", "4"]
    return ["pretrain", *words, *TINY, "--output-dir", str(folder)]


def test_the_commit_of_the_checkout_is_recorded(text_run):
    root = Path(smt_hf.__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    commit = json.loads((text_run / "run.json").read_text())["git_commit"]
    assert len(commit) == 40 and len(head.stdout.strip()) == 40


def test_the_card_holds_the_command_of_the_run(text_run, corpus):
    assert shlex.join(["smt-hf", *sys_words(text_run, corpus)]) in (text_run / "README.md").read_text()


def test_the_model_and_its_tokenizer_load_and_generate_by_their_folder_alone(text_run):
    model = AutoModelForCausalLM.from_pretrained(text_run)
    tokenizer = AutoTokenizer.from_pretrained(text_run)
    output = model.generate(**tokenizer("Line 7", return_tensors="pt"), max_new_tokens=6, do_sample=False)
    assert output.shape == (1, 12) and tokenizer.decode(output[0]).startswith("Line 7")


def test_pretrain_ends_with_a_summary_of_at_most_80_columns(tmp_path, monkeypatch, capsys, corpus):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", str(corpus), "--max-steps", "2", "--checkpoint-every", "0", "--output-dir", "run"]
    assert main(["pretrain", *words, *TINY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "run: gru by smt" in text and "sequential steps" in text and "0–32:" in text


def test_flags_win_over_the_preset(tmp_path, corpus):
    flags = {
        "--hidden-size": "16", "--num-memory-tokens": "4", "--num-hidden-layers": "2", "--context-length": "20",
        "--future-length": "6", "--num-encoder-layers": "1", "--encoder-type": "bidirectional",
        "--learning-rate": "1e-4", "--rollout-length": "5", "--num-sweeps": "2", "--batch-size": "4",
        "--max-steps": "2", "--checkpoint-every": "0", "--dataset": str(corpus),
        "--output-dir": str(tmp_path / "r"),
    }  # fmt: skip
    assert main(["pretrain", *TINY, *(word for pair in flags.items() for word in pair)]) == 0
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["model"]["hidden_size"] == 16 and record["model"]["num_memory_tokens"] == 4
    assert record["model"]["num_hidden_layers"] == 2
    assert record["sequence_length"] == 26 and record["teacher"]["context_length"] == 20
    teacher = json.loads((tmp_path / "r" / "teacher" / "config.json").read_text())
    assert (teacher["num_hidden_layers"], teacher["future_length"]) == (1, 6)
    assert teacher["encoder_type"] == "bidirectional"
    arguments = record["spec"]
    assert (arguments["learning_rate"], arguments["rollout_length"], arguments["num_sweeps"]) == (1e-4, 5, 2)


@pytest.mark.parametrize(("flags", "future"), [([], 16), (["--future-length", "3"], 3)])
def test_a_task_is_predicted_to_its_end_unless_a_future_is_given(tmp_path, flags, future):
    words = ["--dataset", "copy", "--sequence-length", "16", "--max-steps", "1", "--dmt-fraction", "0", *flags]
    args = build_parser().parse_args(["pretrain", *words, "--output-dir", str(tmp_path / "r")])
    args.words = []
    assert build(spec_of(args)).teacher.config.future_length == future


def test_stopped_by_a_signal_it_saves_and_prints_the_command_that_goes_on(
    tmp_path, monkeypatch, capsys, corpus
):
    import os
    import signal

    def command(name: str) -> list[str]:
        words = ["--dataset", str(corpus), "--max-steps", "6", "--checkpoint-every", "0"]
        return ["pretrain", *words, *TINY, "--output-dir", str(tmp_path / name)]

    def run(words: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["smt-hf", *words])
        return main(words)

    assert run(command("unbroken")) == 0
    log = RunFolder.log

    def log_and_stop(self: RunFolder, line: dict) -> None:
        log(self, line)
        if line["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", log_and_stop)
        capsys.readouterr()
        assert run(command("my run")) == 128 + signal.SIGTERM
    said = capsys.readouterr().out
    assert "step_0000004" in said
    printed = said.splitlines()[-1].strip()
    assert printed == shlex.join(["smt-hf", *command("my run"), "--resume"])
    assert not (tmp_path / "my run" / "model.safetensors").exists()

    assert run(shlex.split(printed)[1:]) == 0
    assert "step_0000004" in capsys.readouterr().out
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("my run", "unbroken")]
    assert weights[0] == weights[1]


@pytest.mark.timeout(900)  # the interpreter alone takes a minute on a busy machine
def test_sigterm_from_outside_ends_the_process_as_a_shell_expects(tmp_path, corpus):
    import signal

    folder = tmp_path / "run"
    words = [
        "--dataset",
        str(corpus),
        "--max-minutes",
        "10",
        "--checkpoint-every",
        "0",
        "--output-dir",
        str(folder),
    ]
    code = (
        # Says so on stdout when the first step is done, so that nobody has to wait and look.
        "import sys\n"
        "from smt_hf.runs.folder import RunFolder\n"
        "log = RunFolder.log\n"
        "RunFolder.log = lambda self, line: (log(self, line), print('logged', flush=True))\n"
        "from smt_hf.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = warm.start(code, "pretrain", *words, *TINY)
    assert process.stdout.readline() == "logged\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "--resume" in out.splitlines()[-1] and str(folder) in out.splitlines()[-1]
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert (checkpoint / "state.json").is_file() and checkpoint.name in out


# ---------------------------------------------------------------- evaluate


def evaluate(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    capsys.readouterr()
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    return json.loads(out)


def test_evaluate_reads_as_many_tokens_as_a_short_text_has(text_run, tmp_path, capsys):
    (tmp_path / "short.txt").write_text("Line 7 says that " * 6)  # 102 bytes: one more than there are targets
    words = [text_run, "--dataset", tmp_path / "short.txt"]
    result = evaluate(capsys, *words)
    assert result["by_horizon"][-1]["end"] == result["tokens"] == 101
    assert main(["evaluate", *map(str, words), "--horizon", "256"]) == 2
    assert "takes 257" in capsys.readouterr().err


def test_evaluate_json_has_exactly_these_keys(text_run, corpus, capsys):
    result = evaluate(capsys, text_run, "--dataset", corpus, "--horizon", 80)
    assert set(result) == {"bits_per_byte", "tokens", "by_horizon", "state_bytes", "parameters"}
    assert [set(part) for part in result["by_horizon"]] == [{"start", "end", "bits_per_byte"}] * 3
    assert [(part["start"], part["end"]) for part in result["by_horizon"]] == [(0, 32), (32, 64), (64, 80)]


def test_evaluate_equals_reading_the_validation_text_block_by_block(text_run, corpus, capsys):
    result = evaluate(capsys, text_run, "--dataset", corpus, "--horizon", 40)
    model = AutoModelForCausalLM.from_pretrained(text_run).eval()
    text = corpus.read_text()
    validation = text[len(text) - round(len(text) * 0.05) :].encode()
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(validation) - 40, 40):
            block = torch.tensor([list(validation[start : start + 41])])
            logits = model(block[:, :-1]).logits[0].double()
            total -= logits.log_softmax(-1).gather(1, block[0, 1:, None]).sum().item()
            count += 40
    assert result["tokens"] == count > 400
    assert result["bits_per_byte"] == pytest.approx(total / count / math.log(2), rel=1e-4)
    assert result["state_bytes"] == 256 and result["parameters"] == model.num_parameters()


def test_evaluate_judges_no_more_targets_than_asked(text_run, corpus, capsys):
    assert evaluate(capsys, text_run, "--dataset", corpus, "--horizon", 40, "--max-tokens", 100)["tokens"] == 80
    assert evaluate(capsys, text_run, "--dataset", corpus, "--max-tokens", 25)["tokens"] == 25


def test_evaluate_for_people_says_the_same(text_run, corpus, capsys):
    result = evaluate(capsys, text_run, "--dataset", corpus, "--horizon", 64)
    assert main(["evaluate", str(text_run), "--dataset", str(corpus), "--horizon", "64"]) == 0
    out = capsys.readouterr().out
    for part in result["by_horizon"]:
        assert f"{part['start']}–{part['end']}: {part['bits_per_byte']:.3f}" in out
    assert f"{result['tokens']:,} targets" in out and "256 bytes" in out


def test_evaluate_on_a_task_reports_accuracy_at_the_trained_length(task_run, capsys):
    result = evaluate(capsys, task_run, "--dataset", "retrieval")
    assert set(result) == {"accuracy", "chance", "tokens", "by_length", "state_bytes", "parameters"}
    assert result["tokens"] == 1024  # every row of validation, one answer each
    assert result["by_length"] == {"24": result["accuracy"]} and result["chance"] == 0.125
    record = json.loads((task_run / "run.json").read_text())
    assert record["sequence_length"] == 24
    rows = RetrievalTask(24, split="validation").__getitems__(range(1024))
    model = AutoModelForCausalLM.from_pretrained(task_run).eval()
    with torch.no_grad():
        answers = model(rows["input_ids"]).logits[:, -1].argmax(-1)
    assert result["accuracy"] == pytest.approx((answers == rows["shift_labels"][:, -1]).float().mean().item())


def test_evaluate_on_a_task_at_another_length(task_run, capsys):
    longer = evaluate(capsys, task_run, "--dataset", "retrieval", "--sequence-length", 60, "--max-tokens", 50)
    assert longer["tokens"] == 50
    several = evaluate(capsys, task_run, "--lengths", 60, 8, "--max-tokens", 50)
    assert list(several["by_length"]) == ["24", "60", "8"]
    assert several["by_length"]["60"] == longer["accuracy"]


def test_evaluate_reads_the_data_of_the_run_unless_told_otherwise(text_run, corpus, capsys, monkeypatch):
    own = evaluate(capsys, text_run)
    assert own == evaluate(capsys, text_run, "--dataset", corpus)
    monkeypatch.chdir(corpus.parent)
    assert own == evaluate(capsys, text_run, "--dataset", corpus.name)


def test_evaluate_judges_all_of_a_text_that_the_run_was_not_trained_on(text_run, corpus, tmp_path, capsys):
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("0123456789" * 20 + "x")
    assert evaluate(capsys, text_run, "--dataset", held_out, "--horizon", 20)["tokens"] == 200
    assert main(["evaluate", str(text_run), "--dataset", str(held_out), "--horizon", "20"]) == 0
    assert f"all of {held_out}" in capsys.readouterr().out
    main(["evaluate", str(text_run), "--dataset", str(corpus)])
    assert f"the validation part of {corpus}" in capsys.readouterr().out
    main(["evaluate", str(text_run), "--dataset", f"{corpus.parent}/"])
    assert f"overlaps with {corpus}" in capsys.readouterr().err


def test_evaluate_judges_the_split_that_is_asked_for(text_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "table").mkdir()
    for split, rows in (("train", 30), ("validation", 2), ("test", 3)):
        lines = "".join(json.dumps({"text": f"{split} {i:03} " + "." * 49}) + "\n" for i in range(rows))
        (tmp_path / "table" / f"{split}.jsonl").write_text(lines)

    def tokens(*words: object) -> int:
        words = ("--dataset", tmp_path / "table", "--horizon", 8, *words)
        return evaluate(capsys, text_run, *words)["tokens"] // 8

    sizes = {"train": 30 * 60 - 1, "validation": 2 * 65 - 1, "test": 3 * 59 - 1}
    blocks = {split: (size - 1) // 8 for split, size in sizes.items()}
    assert tokens() == blocks["validation"]
    for split in sizes:
        assert tokens("--split", split) == tokens("--validation-split", split) == blocks[split]


def test_evaluate_prints_a_line_for_each_length(task_run, capsys):
    result = evaluate(capsys, task_run, "--lengths", 48)
    assert main(["evaluate", str(task_run), "--lengths", "48"]) == 0
    out = capsys.readouterr().out
    for length, accuracy in result["by_length"].items():
        assert f"{length} tokens: {accuracy:.4f}" in out
    assert "chance 0.125" in out and "retrieval" in out


# ---------------------------------------------------------------- generate


def generate(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    capfd.readouterr()
    assert main(["generate", *map(str, words)]) == 0
    return capfd.readouterr().out


def test_generate_prints_the_prompt_and_its_continuation(text_run, capsys):
    out = generate(capsys, text_run, "--prompt", "Line 8", "--max-new-tokens", 20, "--temperature", 0)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(text_run), AutoTokenizer.from_pretrained(text_run)
    expected = model.generate(**tokenizer("Line 8", return_tensors="pt"), max_new_tokens=20, do_sample=False)
    assert out.strip() == tokenizer.decode(expected[0]).strip()


def test_generate_samples_by_its_seed(text_run, capsys):
    words = [text_run, "--prompt", "Line", "--max-new-tokens", 30, "--temperature", 1.5, "--top-k", 0, "--seed"]
    first = generate(capsys, *words, 1)
    torch.manual_seed(123)
    assert generate(capsys, *words, 1) == first
    assert generate(capsys, *words, 2) != first


def test_generate_for_a_task_prints_symbols(task_run, capsys):
    out = generate(capsys, task_run, "--prompt", "n0 n3 <|marker|> 5 n1 <|query|>", "--max-new-tokens", 2)
    assert out.startswith("n0 n3 <|marker|> 5 n1 <|query|> ")


# ---------------------------------------------------------------- compare


def test_compare_tabulates_and_plots_the_runs(text_run, task_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    plot = tmp_path / "curves.png"
    assert main(["compare", str(text_run), str(task_run), "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    final = json.loads((text_run / "run.json").read_text())["final"]
    for part in final["by_horizon"]:
        assert f"{part['loss'] / math.log(2):.3f}" in out
    assert f"{json.loads((task_run / 'run.json').read_text())['final']['accuracy']:.3f}" in out
    assert plot.read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------- a cell of one's own


def test_a_cell_of_ones_own_trains_saves_evaluates_and_generates(tmp_path, monkeypatch, capsys, corpus):
    monkeypatch.setattr(cells, "CELLS", cells.CELLS)  # the same dictionary …
    monkeypatch.delitem(cells.CELLS, "leaky_cells:LeakyCell", raising=False)  # … as it was, afterwards
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaky_cells.py").write_text(HAND_MADE_CELL)
    name = "leaky_cells:LeakyCell"
    words = ["--dataset", str(corpus), "--max-steps", "4", "--checkpoint-every", "0", "--output-dir", "run"]
    try:
        assert main(["pretrain", "--cell", name, *words, *TINY]) == 0
        assert json.loads((tmp_path / "run" / "config.json").read_text())["cell"] == name
        own = ["--cell", name]
        assert evaluate(capsys, "run", *own, "--dataset", corpus, "--horizon", 40)["bits_per_byte"] > 0
        assert generate(capsys, "run", *own, "--prompt", "Line", "--max-new-tokens", 3).startswith("Line")

        # Without it the command says what is missing; a configuration never imports anything by itself.
        del cells.CELLS[name]
        assert main(["generate", "run", "--prompt", "Line"]) == 2
        assert f"--cell {name}" in capsys.readouterr().err
    finally:
        cells.CELLS.pop(name, None)
        sys.modules.pop("leaky_cells", None)


# ---------------------------------------------------------------- quickstart


def test_the_quickstart_plan_fits_eight_minutes_and_compares_like_with_like():
    runs = quickstart.plan(build_parser().parse_args(["quickstart"]))
    assert sum(run.max_minutes for run in runs.values()) < 7.5
    smt, bptt = (run.to_dict() for name, run in runs.items() if name.startswith("retrieval-"))
    # The same task, model, budget, batch and curriculum; learning rates are each method's own.
    own = {"method", "learning_rate", "dmt_learning_rate", "num_labels", "output_dir"}
    assert {name for name in smt if smt[name] != bptt[name]} <= own


def test_quickstart_trains_compares_samples_and_says_where_everything_is(tmp_path, monkeypatch, capsys, corpus):
    common: dict[str, Any] = {"preset": "tiny", "disable_tqdm": True, "checkpoint_every": 0, "max_steps": 2}
    plan = {
        name: RunSpec.of(dataset=data, **common, output_dir=str(tmp_path / "q" / name))
        for name, data in (("text-gru", str(corpus)), ("retrieval-gru-smt", "retrieval"))
    }
    monkeypatch.setattr(quickstart, "plan", lambda args: plan)
    command = ["quickstart", "--output-dir", str(tmp_path / "q")]
    monkeypatch.setattr(sys, "argv", ["smt-hf", *command])
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "bits per byte" in out and "accuracy" in out and out.count("“The value of”") == 2
    assert (tmp_path / "q" / "learning_curves.png").is_file()
    assert "learning_curves.png" in out.replace("\n", "")
    # Each run's card and record say how to make *it*.
    for name, spec in plan.items():
        record = json.loads((tmp_path / "q" / name / "run.json").read_text())
        assert record["command"] == spec.command() and "--output-dir" in record["command"]
