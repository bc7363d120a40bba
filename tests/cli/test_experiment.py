# Keyword dictionaries of mixed values.
# mypy: disable-error-code="arg-type"
"""experiment and report: the runs in turn, none of them twice, and everything told by the results table."""

import json
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from tiny_commands import one_line

from smt_hf.cli import experiment, main
from smt_hf.experiments import runner
from smt_hf.experiments.recipe import Length, Recipe, by_name, plan
from smt_hf.experiments.recipes import EXPERIMENTS
from smt_hf.pretraining.stops import NonFiniteLossError
from smt_hf.runs.folder import RunFolder
from smt_hf.runs.results import read_results, write_results

TINY = Recipe(
    about="a recipe of seconds",
    dataset="copy:num_values=4",
    lengths={8: Length(0.005)},
    cells=("gru",),
    arguments={
        "preset": "tiny",
        "num_evaluations": 2,
        "logging_steps": 1,
        "rollout_length": 7,
        "curriculum_start_length": 4,
    },
    smt={},
    bptt_learning_rates=(1e-3, 1e-2),
    tested=(1, 2),
)
NAMES = ["gru-8-smt-seed0", "gru-8-bptt-0.001-seed0", "gru-8-bptt-0.01-seed0"]


VARIED = replace(
    TINY,
    smt={"dmt_fraction": 0.5},
    bptt_learning_rates=(1e-3,),
    variants=by_name({"detach_labels": True}, {"bptt_fraction": 0.25}),
)
VARIED_NAMES = [
    "gru-8-smt-seed0", "gru-8-bptt-0.001-seed0", "gru-8-smt-detach-labels-seed0",
    "gru-8-smt-bptt-fraction=0.25-seed0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    monkeypatch.setitem(EXPERIMENTS, "varied", VARIED)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(autouse=True)
def _unpainted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Painting takes longer than the runs, so pictures are painted only where a test is of the report."""

    def savefig(self: Figure, file: Any, format: str, **options: Any) -> None:
        if format == "png":
            Path(file).write_bytes(b"\x89PNG Matplotlib")
        else:
            file.write("<svg></svg>")

    if "report" not in request.node.name:
        monkeypatch.setattr(Figure, "savefig", savefig)


def run(folder: Path, *words: object) -> int:
    return main(["experiment", "tiny", "--output-dir", str(folder), *map(str, words)])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiments") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, "tiny", TINY)
        assert run(folder) == 0
    return folder


def test_the_table_holds_every_run_at_every_length_as_evaluate_measures_it(done, capsys):
    rows = read_results(done / "results.csv")
    assert [(row["run"], row["length_tested"]) for row in rows] == [(n, t) for n in NAMES for t in (8, 16)]
    assert {row["learning_rate"] for row in rows if row["method"] == "bptt"} == {1e-3, 1e-2}
    assert {row["task"] for row in rows} == {"copy:num_values=4"} and rows[0]["chance"] == 0.25
    capsys.readouterr()
    assert main(["evaluate", str(done / NAMES[0]), "--lengths", "16", "--json"]) == 0
    by_length = json.loads(capsys.readouterr().out)["by_length"]
    assert by_length == {str(row["length_tested"]): row["value"] for row in rows[:2]}


def test_each_row_says_how_to_make_its_run(done):
    for row in read_results(done / "results.csv"):
        record = json.loads((done / row["run"] / "run.json").read_text())
        assert row["command"].split() == record["command"] and row["command"].startswith("smt-hf pretrain ")
        assert row["commit"] == record["git_commit"]
        assert (row["tokens"], row["sequential_steps"]) == (record["tokens"], record["sequential_steps"])


def test_what_is_finished_is_not_run_again_and_all_is_printed(done, capsys, monkeypatch):
    monkeypatch.setattr(runner, "train", lambda *_: pytest.fail("a finished run was run again"))
    before = (done / "results.csv").read_text()
    capsys.readouterr()
    assert run(done) == 0
    out = capsys.readouterr().out
    assert (done / "results.csv").read_text() == before
    tables = out[out.index("tiny trained at 8") :].replace(str(done), "")  # as long as the machine has it
    assert max(map(len, tables.splitlines())) <= 80
    for row in read_results(done / "results.csv"):
        assert f"{row['value']:.3f}" in out
    assert "at equal budgets" in out and (done / "tiny.png").is_file()


def test_runs_that_another_process_adds_meanwhile_stay_in_the_table(done, tmp_path, monkeypatch):
    folder = tmp_path / "two"
    rows = read_results(done / "results.csv")
    train = runner.train

    def slowly(spec, resume):
        record = train(spec, resume)
        write_results(folder / "results.csv", [row for row in rows if row["run"] != NAMES[0]])
        return record

    monkeypatch.setattr(runner, "train", slowly)
    monkeypatch.setattr(experiment, "plan", lambda *args: plan(*args)[:1])
    assert run(folder) == 0
    assert {row["run"] for row in read_results(folder / "results.csv")} == set(NAMES)


def test_a_lost_table_is_made_again_without_training(done, monkeypatch):
    before = (done / "results.csv").read_text()
    (done / "results.csv").unlink()
    monkeypatch.setattr(runner, "train", lambda *_: pytest.fail("a finished run was run again"))
    assert run(done) == 0
    assert (done / "results.csv").read_text() == before


def test_lost_probes_are_measured_again_without_training(done, monkeypatch):
    before = {name: (done / name / "probes.json").read_text() for name in NAMES}
    (done / NAMES[1] / "probes.json").unlink()
    monkeypatch.setattr(runner, "train", lambda *_: pytest.fail("a finished run was run again"))
    monkeypatch.setattr(runner, "evaluate", lambda *_: pytest.fail("a finished run was judged again"))
    assert run(done) == 0
    assert {name: (done / name / "probes.json").read_text() for name in NAMES} == before
    assert [json.loads(text)["teacher"] is None for text in before.values()] == [False, True, True]


def varied(folder: Path, *words: object) -> int:
    return main(["experiment", "varied", "--output-dir", str(folder), *map(str, words)])


def test_variants_are_run_beside_the_recipe_stopped_and_gone_on_with(tmp_path, monkeypatch, capsys):
    """Stopped in the first variant; one that diverged is reported and gives no row."""
    log, train = RunFolder.log, runner.train
    stopped: list[int] = []

    def stop_once(self, line):
        log(self, line)
        if self.path.name == VARIED_NAMES[2] and not stopped:
            stopped.append(line["step"])
            signal.raise_signal(signal.SIGTERM)

    def diverge(spec, resume):
        if spec.bptt_fraction:
            raise NonFiniteLossError("the loss is not finite at step 3.")
        return train(spec, resume)

    monkeypatch.setattr(RunFolder, "log", stop_once)
    assert varied(tmp_path) == 128 + signal.SIGTERM
    assert {row["run"] for row in read_results(tmp_path / "results.csv")} == set(VARIED_NAMES[:2])
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", diverge)
        assert varied(tmp_path) == 0
    assert f"{VARIED_NAMES[3]} diverged and gives no result" in capsys.readouterr().out
    assert {row["run"] for row in read_results(tmp_path / "results.csv")} == set(VARIED_NAMES[:3])
    assert varied(tmp_path) == 0  # the one that diverged is tried again
    out = capsys.readouterr().out
    rows = read_results(tmp_path / "results.csv")
    assert [row["variant"] for row in rows[::2]] == ["", "", "detach-labels", "bptt-fraction=0.25"]
    assert [row["run"] for row in rows[::2]] == VARIED_NAMES
    for name, phases in zip(VARIED_NAMES[2:], (["smt", "dmt"], ["smt", "dmt", "bptt"]), strict=True):
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert [phase["name"] for phase in record["phases"]] == phases
        assert (tmp_path / name / "probes.json").is_file()
        assert record["spec"]["detach_labels"] is ("detach" in name)
    tables = out[out.index("varied trained at 8") :].replace(str(tmp_path), "")
    assert max(map(len, tables.splitlines())) <= 80
    # At equal budgets stands the recipe as it is: variants would count as more runs of it, with a spread.
    assert "±" not in out[out.index("at equal budgets") :]


def test_the_variants_asked_for_are_run_and_others_refused(tmp_path, capfd, monkeypatch):
    trained: list[str] = []
    record = SimpleNamespace(seconds=1.0, tokens=1)

    def train(spec, resume):
        trained.append(Path(spec.output_dir).name)
        return record

    monkeypatch.setattr(runner, "train", train)
    monkeypatch.setattr(runner, "evaluate", lambda *_: [])
    monkeypatch.setattr(runner, "write_probes", lambda folder: None)
    assert varied(tmp_path, "--variants", "detach-labels") == 2  # nothing was evaluated, so nothing to show
    assert trained == VARIED_NAMES[:3]
    capfd.readouterr()
    assert varied(tmp_path, "--variants", "detached") == 2
    assert "unknown variant 'detached'; choose among detach-labels" in one_line(capfd.readouterr().err)


def test_a_run_that_was_deleted_is_made_again_and_its_figures_replaced(done, tmp_path):
    folder = tmp_path / "e"
    shutil.copytree(done, folder)
    rows = read_results(folder / "results.csv")
    for row in rows:
        row["value"] = -1.0
    write_results(folder / "results.csv", rows)
    shutil.rmtree(folder / NAMES[1])
    assert run(folder, "--bptt-learning-rates", 1e-3) == 0  # the third run is not asked for, and stays
    values = {row["run"]: row["value"] for row in read_results(folder / "results.csv")}
    assert values[NAMES[0]] == values[NAMES[2]] == -1.0 and 0 <= values[NAMES[1]] <= 1


def test_a_stopped_experiment_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """Stopped by SIGTERM in the first step of the second run; what was finished stays, the rest is done."""
    log, train = RunFolder.log, runner.train
    trained: list[tuple[str, bool]] = []
    stopped: list[int] = []

    def stop_once(self, line):
        log(self, line)
        if self.path.name == NAMES[1] and not stopped:
            stopped.append(line["step"])
            signal.raise_signal(signal.SIGTERM)

    def train_and_note(spec, resume):
        trained.append((Path(spec.output_dir).name, resume))
        return train(spec, resume)

    monkeypatch.setattr(RunFolder, "log", stop_once)
    monkeypatch.setattr(runner, "train", train_and_note)
    folder = tmp_path / "e"
    assert run(folder) == 128 + signal.SIGTERM
    assert "same command goes on" in capsys.readouterr().out
    first = (folder / "results.csv").read_text()
    assert {row["run"] for row in read_results(folder / "results.csv")} == {NAMES[0]}
    assert run(folder) == 0
    assert trained == [(NAMES[0], False), (NAMES[1], False), (NAMES[1], True), (NAMES[2], False)]
    assert (folder / "results.csv").read_text().startswith(first)
    assert list(dict.fromkeys(row["run"] for row in read_results(folder / "results.csv"))) == NAMES
    record = json.loads((folder / NAMES[1] / "run.json").read_text())
    assert record["steps"] > stopped[0] and "--resume" not in record["command"]


def test_a_run_that_diverges_does_not_end_the_experiment(tmp_path, monkeypatch, capsys):
    train = runner.train

    def diverge_once(spec, resume):
        if "0.01" in Path(spec.output_dir).name:
            raise NonFiniteLossError("the loss is not finite at step 3.")
        return train(spec, resume)

    monkeypatch.setattr(runner, "train", diverge_once)
    assert run(tmp_path / "e") == 0
    assert f"{NAMES[2]} diverged and gives no result" in capsys.readouterr().out
    assert {row["run"] for row in read_results(tmp_path / "e" / "results.csv")} == set(NAMES[:2])


def refused(capfd: pytest.CaptureFixture[str], folder: Path, *words: object) -> str:
    capfd.readouterr()
    assert run(folder, *words) == 2
    return one_line(capfd.readouterr().err)


def test_other_arguments_in_the_same_folder_are_refused(done, capfd):
    line = refused(capfd, done, "--set", "hidden-size=16")
    assert str(done / NAMES[0]) in line and "hidden_size 32, now 16" in line and "--output-dir" in line
    line = refused(capfd, done, "--max-minutes", 3)
    assert "0.005, now 3.0" in line


def test_a_table_of_another_version_is_refused_before_any_run(tmp_path, capfd):
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    assert "another version" in refused(capfd, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--set", "hidden-size"], ["--set hidden-size", "NAME=VALUE"]),
        (["--set", "seed=1", "seed=2"], ["each name once"]),
        (["--set", "seed=1"], ["--set seed=1", "use --seeds"]),
        (["--set", "max-minutes=1"], ["--set", "=1.0", "use --max-minutes"]),
        (["--set", "dataset=copy"], ["dataset=copy", "another experiment"]),
        (["--set", "max-steps=9", "--max-minutes", "2"], ["--max-minutes is 2", "steps 9", "give one"]),
        (["--cells", "gruu"], ["'gruu'", "lstm"]),
        # The first length could be run.
        (["--lengths", "8", "1"], ["--lengths is 1", "at least 2"]),
        (["--lengths", "8", "4", "--set", "rollout-length=5"], ["rollout_length 5", "4 tokens", "at most 3"]),
    ],
)
def test_wrong_words_are_refused(tmp_path, capfd, words, named):
    line = refused(capfd, tmp_path / "e", *words)
    assert [text for text in named if text not in line] == [], line
    assert not (tmp_path / "e").exists()


def test_an_unknown_experiment_lists_what_there_is(capfd):
    assert main(["experiment", "retreival"]) == 2
    line = one_line(capfd.readouterr().err)
    assert "'retreival'" in line and "retrieval, marked" in line


def test_an_unknown_setting_is_refused_before_any_run(tmp_path, capfd):
    line = refused(capfd, tmp_path / "e", "--set", "hiden-size=3")
    assert "--set" in line and "'hiden-size'" in line and "hidden_size" in line
    assert not (tmp_path / "e").exists()


def test_each_listed_command_makes_one_run_into_the_shared_folder(tmp_path, capsys, done):
    """As other machines would carry them out, in any order."""
    assert run(tmp_path / "e", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES) and not (tmp_path / "e").exists()
    for line, name in zip(reversed(lines), reversed(NAMES), strict=True):
        program, *words = shlex.split(line)
        assert program == "smt-hf" and words[-2:] == ["--runs", name] and "--list" not in words
        assert main(words) == 0
        assert (tmp_path / "e" / name / "model.safetensors").is_file()
    rows = read_results(tmp_path / "e" / "results.csv")
    assert {row["run"] for row in rows} == set(NAMES) and len(rows) == 2 * len(NAMES)
    capsys.readouterr()
    assert main([*words[:-1], "gru"]) == 2
    assert "unknown run 'gru'" in one_line(capsys.readouterr().err)


def test_report_draws_from_the_table_alone(done, tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.csv").write_bytes((done / "results.csv").read_bytes())
    assert main(["report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("tiny trained at 8") == 2
    assert (tmp_path / "one" / "tiny.png").is_file() and (tmp_path / "two" / "tiny.png").is_file()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="tiny-one"' in page and 'id="tiny-two"' in page


def test_report_reads_benchmarks_and_stored_experiments_below(done, tmp_path, capsys):
    stored = tmp_path / "experiments" / "tiny"
    stored.mkdir(parents=True)
    (stored / "results.csv").write_bytes((done / "results.csv").read_bytes())
    steps = [
        {"model": "smt-gru", "method": method, "parameters": 1e6, "context": context, "tokens_per_second": 1e4,
         "range": [9e3, 1.1e4], "sequential_steps": 1}
        for method in ("smt", "bptt") for context in (8, 64)
    ]  # fmt: skip
    machine = dict.fromkeys(("processor", "device", "cores", "torch", "transformers", "smt_hf"), "any")
    record = {"what": "train", "command": ["benchmark", "train"], "dtype": "float32", "repeats": 3}
    record |= {"machine": machine, "rows": steps}
    (tmp_path / "benchmark-train.json").write_text(json.dumps(record))
    assert main(["report", str(tmp_path)]) == 0
    assert (stored / "tiny.png").is_file() and (tmp_path / "benchmark-train.png").is_file()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="tiny"' in page and 'id="speed"' in page


def test_report_names_probes_of_another_version_and_writes_nothing(done, tmp_path, capfd):
    (tmp_path / "results.csv").write_bytes((done / "results.csv").read_bytes())
    name = read_results(done / "results.csv")[0]["run"]
    (tmp_path / name).mkdir()
    (tmp_path / name / "probes.json").write_text('{"format": 99}')
    assert main(["report", str(tmp_path)]) == 2
    assert f"{name}/probes.json has format 99" in one_line(capfd.readouterr().err)
    assert not (tmp_path / "report.html").exists() and not list(tmp_path.glob("*.png"))


def test_report_without_matplotlib_says_what_to_install(done, tmp_path, capfd, monkeypatch):
    (tmp_path / "results.csv").write_bytes((done / "results.csv").read_bytes())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(tmp_path)]) == 2
    assert "pip install 'smt-hf[report]'" in one_line(capfd.readouterr().err)


def test_report_refuses_a_folder_without_results(tmp_path, capfd):
    assert main(["report", str(tmp_path)]) == 2
    assert str(tmp_path) in one_line(capfd.readouterr().err)


def test_the_help_lists_every_experiment(capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}: " in shown for name in EXPERIMENTS)


def test_recipes_run_under_their_own_arguments():
    """What the runner adds must not be a recipe's, which it would win over."""
    for recipe in EXPERIMENTS.values():
        lengths = [own.arguments for own in recipe.lengths.values()]
        for arguments in (recipe.arguments, recipe.smt, recipe.bptt, *lengths):
            assert not runner.RUNNING.keys() & arguments.keys()
