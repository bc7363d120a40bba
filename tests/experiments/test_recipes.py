"""Recipes: fair between the methods, small enough for one core, and made of arguments that exist."""

import importlib.util
from pathlib import Path

import pytest

from smt_hf.data.tasks import is_task, make_task
from smt_hf.experiments.recipe import Length, Recipe, by_name, plan
from smt_hf.experiments.recipes import EXPERIMENTS
from smt_hf.experiments.runner import spec_of
from smt_hf.pretraining.assembly import build
from smt_hf.pretraining.fitting import unused
from smt_hf.reporting.findings import PRESETS
from smt_hf.runs.spec import load_preset

# Each method's own: how it is optimised, and, of text, the window that BPTT does best with.
OWN = {
    "method", "learning_rate", "dmt_learning_rate", "dmt_fraction", "dmt_label_every", "num_labels",
    "dynamics_weight", "uniformity_weight", "prompt_fraction", "cell_readout_weight", "output_dir", "words",
}  # fmt: skip
needs_sklearn = pytest.mark.skipif(not importlib.util.find_spec("sklearn"), reason="needs scikit-learn")


def parsed(name: str, **chosen) -> list:
    runs = plan(EXPERIMENTS[name], **chosen)
    return [spec_of(Path("runs"), run) for run in runs]


@pytest.mark.parametrize("name", [name for name, recipe in EXPERIMENTS.items() if recipe.bptt_learning_rates])
def test_both_methods_get_the_same_data_model_budget_and_curriculum(name):
    for length in EXPERIMENTS[name].lengths:
        runs = parsed(name, lengths=[length], variants=[])
        for cell in EXPERIMENTS[name].cells:
            smt, *bptt = (run.to_dict() for run in runs if run.cell == cell)
            assert smt["method"] == "smt" and {one["method"] for one in bptt} == {"bptt"}
            own = OWN | ({"sequence_length"} if EXPERIMENTS[name].dataset == "python-docs" else set())
            for one in bptt:
                assert {key for key in smt if smt[key] != one[key]} <= own
            assert len({one["learning_rate"] for one in bptt}) == len(bptt) >= 3


def test_a_length_wins_over_a_method():
    length = Length(1, {"batch_size": 2})
    recipe = Recipe(about="", dataset="copy", lengths={8: length}, smt={"batch_size": 1})
    assert plan(recipe, cells=["gru"])[0].arguments["batch_size"] == 2


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_run_takes_more_than_fifteen_minutes(name):
    assert all((run.max_minutes or 0) <= 15 for run in parsed(name, lengths=list(EXPERIMENTS[name].lengths)))


def test_what_runs_unless_more_is_asked_for_gives_retrieval_in_minutes():
    assert sum(run.max_minutes for run in parsed("retrieval")) <= 20
    assert {run.sequence_length for run in parsed("retrieval")} == {64}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[needs_sklearn] * (n == "digits")) for n in EXPERIMENTS]
)
def test_every_run_could_start(name, tmp_path, monkeypatch):
    """All that is checked before the first step: sizes, rollouts that fit, curricula the task can have."""
    monkeypatch.chdir(tmp_path)
    # Any text will do, and python-docs takes seconds to read.
    (tmp_path / "text.txt").write_text("".join(f"line {i} of a text\n" for i in range(5000)))
    changes = {"dataset": "text.txt"} if EXPERIMENTS[name].dataset == "python-docs" else {}
    for length in EXPERIMENTS[name].lengths:
        for run in parsed(name, lengths=[length], cells=["gru"], changes=changes):
            build(run)


@pytest.mark.parametrize("name", [name for name, recipe in EXPERIMENTS.items() if recipe.variants])
def test_a_variant_differs_from_its_recipe_by_what_its_name_says(name):
    recipe = EXPERIMENTS[name]
    runs = plan(recipe, cells=["gru"])
    # Of BPTT there is a run for each learning rate.
    plain = {
        tuple(run.arguments.get(of) for of in ("method", "learning_rate")): run
        for run in runs
        if not run.variant
    }
    assert list(dict.fromkeys(run.variant for run in runs if run.variant)) == list(recipe.variants)
    for run in runs:
        if run.variant:
            pairs = {key: f"{value}" for key, value in recipe.variants[run.variant].items()}
            if run.variant != "projected":  # five settings, by a name of its own
                words = [word.partition("=") for word in run.variant.split(",")]
                assert pairs == {name.replace("-", "_"): value or "True" for name, _, value in words}
            as_text = {key: f"{value}" for key, value in run.arguments.items()}
            one = plain[run.arguments["method"], run.arguments.get("learning_rate")]
            assert as_text == {key: f"{value}" for key, value in one.arguments.items()} | pairs


@pytest.mark.parametrize("name", [n for n, recipe in EXPERIMENTS.items() if is_task(recipe.dataset)])
def test_tasks_are_tested_at_lengths_that_they_can_have(name):
    recipe = EXPERIMENTS[name]
    for length in recipe.lengths:
        for run in plan(recipe, lengths=[length], cells=["gru"]):
            assert run.tested[0] == length == run.length
            for tested in run.tested:
                make_task(recipe.dataset, tested)


RECIPE = Recipe(
    about="a plan to look at",
    dataset="copy",
    lengths={8: Length(1), 32: Length(3, {"batch_size": 7})},
    arguments={"hidden_size": 32},
    smt={"num_labels": 4},
    bptt_learning_rates=(1e-3, 1e-2),
)


def test_a_plan_is_the_product_of_lengths_cells_seeds_and_rates():
    runs = plan(RECIPE, lengths=[8, 32], cells=["gru", "my_cells:Leaky"], seeds=[0, 5])
    assert len(runs) == len({run.name for run in runs}) == 2 * 2 * 2 * 3
    assert [run.name for run in plan(RECIPE, cells=["gru"])] == [
        "gru-8-smt-seed0",
        "gru-8-bptt-0.001-seed0",
        "gru-8-bptt-0.01-seed0",
    ]
    assert not any(":" in run.name for run in runs)  # a folder's name on any system


def test_what_the_user_sets_wins_over_the_recipe():
    smt, bptt = plan(
        RECIPE, lengths=[32], cells=["gru"], max_minutes=90, learning_rates=[0.5],
        changes={"hidden_size": "256", "num_labels": "2"},
    )  # fmt: skip
    for run in (smt, bptt):
        assert run.arguments["hidden_size"] == "256" and run.arguments["max_minutes"] == 90
        assert run.arguments["num_labels"] == "2" and run.arguments["batch_size"] == 7
    assert bptt.arguments["learning_rate"] == 0.5 and "learning_rate" not in smt.arguments
    assert smt.tested == [32, 64, 128, 512]


def test_a_length_that_the_recipe_does_not_know_takes_what_its_longest_needs():
    (run, *_) = plan(RECIPE, lengths=[500])
    assert (run.arguments["sequence_length"], run.arguments["batch_size"]) == (500, 7)
    assert run.arguments["max_minutes"] == 3


def test_rows_of_more_than_4096_tokens_are_tested_only_where_they_were_trained():
    tested = {length: plan(RECIPE, lengths=[length])[0].tested for length in (256, 257, 5000)}
    assert tested == {256: [256, 512, 1024, 4096], 257: [257, 514, 1028], 5000: [5000]}


VARIED = Recipe(
    about="a plan with variants",
    dataset="copy",
    lengths={8: Length(1)},
    cells=("gru",),
    arguments={"hidden_size": 32, "batch_size": 4},
    bptt={"num_evaluations": 3},
    bptt_learning_rates=(1e-3, 1e-2),
    variants=by_name(
        {"hidden_size": 16, "num_memory_tokens": 2},
        {"detach_labels": True},
        {"method": "bptt", "bptt_truncation": 4},
    ),
)


def test_a_variant_is_run_beside_the_recipe_by_smt_unless_it_says_bptt():
    runs = plan(VARIED, seeds=[0, 1])
    assert [run.name for run in runs[: len(runs) // 2]] == [
        "gru-8-smt-seed0",
        "gru-8-bptt-0.001-seed0",
        "gru-8-bptt-0.01-seed0",
        "gru-8-smt-hidden-size=16,num-memory-tokens=2-seed0",
        "gru-8-smt-detach-labels-seed0",
        "gru-8-bptt-0.001-method=bptt,bptt-truncation=4-seed0",
        "gru-8-bptt-0.01-method=bptt,bptt-truncation=4-seed0",
    ]
    assert runs[0].arguments["hidden_size"] == 32 and runs[3].arguments["hidden_size"] == 16
    assert runs[5].arguments["bptt_truncation"] == 4 and runs[5].arguments["num_evaluations"] == 3
    assert [run.variant for run in runs[:4]] == ["", "", "", "hidden-size=16,num-memory-tokens=2"]


def test_a_variant_wins_over_what_the_user_sets_so_that_its_name_stays_true():
    runs = plan(VARIED, changes={"hidden_size": "64", "batch_size": "9"}, learning_rates=[1e-3])
    assert [run.arguments["hidden_size"] for run in runs] == ["64", "64", 16, "64", "64"]
    assert {run.arguments["batch_size"] for run in runs} == {"9"}


def test_a_flag_is_a_word_without_a_value():
    spec = spec_of(Path("x"), plan(VARIED, variants=["detach-labels"])[-1])
    assert spec.detach_labels is True
    assert "--detach-labels" in spec.command() and "True" not in spec.command()


def test_what_the_user_sets_holds_and_names_stay_true():
    changes = {"learning_rate": 1e-4, "checkpoint_every": 7, "max_steps": 5, "teacher_weight": 0.1}
    smt, bptt, *_ = plan(VARIED, changes=changes, variants=[])
    assert smt.arguments["learning_rate"] == 1e-4
    assert f"-{bptt.arguments['learning_rate']:g}-" in bptt.name and bptt.arguments["learning_rate"] != 1e-4
    spec = spec_of(Path("x"), smt)
    assert (spec.checkpoint_every, spec.max_steps, spec.max_minutes) == (7, 5, None)
    assert unused(spec) == {"there is no teacher": ["teacher_weight"]}  # to be said when the run begins


def test_a_run_by_bptt_is_not_given_what_only_smt_has_a_use_for():
    smt, bptt, *_ = [
        spec_of(Path("x"), run) for run in plan(VARIED, changes={"rollout_length": 4}, variants=[])
    ]
    assert (smt.method, bptt.method) == ("smt", "bptt")
    assert "--rollout-length" in smt.command() and "--rollout-length" not in bptt.command()
    assert bptt.rollout_length == 4  # a run of an older version, which was given it, is still the same run


def test_the_variants_asked_for_are_run_and_an_unknown_one_is_refused():
    assert len(plan(VARIED, variants=[])) == 3
    assert [run.variant for run in plan(VARIED, variants=["detach-labels"])] == ["", "", "", "detach-labels"]
    with pytest.raises(
        ValueError, match=r"unknown variant 'detach'; choose among hidden-size=16,num-mem.*labels"
    ):
        plan(VARIED, variants=["detach"])
    with pytest.raises(ValueError, match=r"unknown variant 'x'; the recipe has none\."):
        plan(RECIPE, variants=["x"])


def test_a_budget_in_steps_is_the_runs_unless_minutes_are_asked_for():
    recipe = Recipe(about="", dataset="copy", lengths={8: Length(3, {"max_steps": 7})}, bptt_learning_rates=())
    (run, *_) = plan(recipe)
    assert run.arguments["max_steps"] == 7 and "max-minutes" not in run.arguments
    (run, *_) = plan(recipe, max_minutes=2)
    assert run.arguments["max_minutes"] == 2 and "max-steps" not in run.arguments
    (run, *_) = plan(RECIPE, changes={"max_steps": "5"})
    assert run.arguments["max_steps"] == "5" and "max-minutes" not in run.arguments


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_a_variant_that_is_a_preset_changes_what_the_preset_does(cell):
    for variant, preset in PRESETS.items():
        plain, own = load_preset("small", cell)[1], load_preset(preset, cell)[1]
        assert {**plain, **EXPERIMENTS["text"].variants[variant]} == own
