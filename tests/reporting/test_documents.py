"""What is stored is small, whole and of no machine, and the documents have the tables that it makes."""

import json
from pathlib import Path

import pytest

from smt_hf.experiments.recipes import EXPERIMENTS
from smt_hf.reporting.markers import START, updated
from smt_hf.reporting.packed import PACKED, find_studies, read_study
from smt_hf.reporting.study import Study
from smt_hf.reporting.tables import tables_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
PAGES = [ROOT / f"{name}.md" for name in (
    "README", "RESULTS", "results/README", "docs/performance", "docs/export", "docs/scaling", "docs/serving",
    "docs/when-to-use", "studies/LOG",
)]  # fmt: skip
FOLDERS = find_studies(RESULTS)

pytestmark = pytest.mark.skipif(not RESULTS.is_dir(), reason="a source distribution has no results/")


@pytest.fixture(scope="module")
def studies() -> dict[str, Study]:
    return {folder.name: study for folder in FOLDERS if (study := read_study(folder)) is not None}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_has_the_tables_that_the_stored_results_make(page, studies):
    """`smt-hf report results --update` with the names above makes them anew."""
    assert START.search(page.read_text(encoding="utf-8"))
    assert updated(page, tables_of(RESULTS, studies.values(), list(EXPERIMENTS))) == page.read_text(
        encoding="utf-8"
    )


def test_every_study_of_a_recipe_has_its_table_on_a_page_of_results(studies):
    pages = (ROOT / "RESULTS.md", RESULTS / "README.md")
    asked = {name[1] for page in pages for name in START.finditer(page.read_text(encoding="utf-8"))}
    made = tables_of(RESULTS, studies.values(), list(EXPERIMENTS))
    known = {name for name, study in studies.items() if study.name in EXPERIMENTS}
    assert known and {name for name in made if name.split()[0] == "runs" and name.split()[1] in known} <= asked


def test_the_evidence_and_the_documents_stay_small():
    """No raw logs: at most 8,000 lines of text and 3 MB of results; a checkout stays quick."""
    texts = [
        path for folder in (RESULTS, ROOT / "docs") for path in folder.rglob("*")
        if path.suffix in (".csv", ".json", ".jsonl", ".md", ".py", ".sh", ".txt")
    ]  # fmt: skip
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in texts) <= 8000
    drawn = {".png", ".html"}  # `smt-hf report results` leaves them there, and git ignores them
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.suffix not in drawn) <= 3e6
    assert not list(RESULTS.rglob("metrics.jsonl")) and not list(RESULTS.rglob("run.json"))
    for page, most in (("README.md", 150), ("RESULTS.md", 300), ("studies/LOG.md", 250)):
        assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most, page


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_stored_study_is_whole_and_says_how_each_run_is_made(folder, studies):
    study = studies[folder.name]
    assert {path.name for path in folder.iterdir() if path.suffix != ".png"} == set(PACKED)
    for run in study.runs.values():
        assert run.record is not None and run.evaluations
        words = run.record.command.split()
        assert words[:2] == ["smt-hf", "pretrain"] and not any(word.startswith("/") for word in words)
        if run.record.seed:
            assert f"--seed {run.record.seed}" in run.record.command
        assert run.evaluations[-1].sequential_steps == run.record.sequential_steps


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_of_runs_that_differ_only_in_their_seed_no_two_have_the_same(folder, studies):
    names = ("variant", "cell", "method", "learning_rate", "length_trained", "seed")
    keys = {row["run"]: tuple(row[name] for name in names) for row in studies[folder.name].rows}
    assert len(set(keys.values())) == len(keys)


def test_the_long_run_is_finite_and_its_state_keeps_its_size():
    result = json.loads((RESULTS / "long_run-gru.json").read_text(encoding="utf-8"))
    assert result["finite"] and all(abs(rms - 1) < 1e-4 for rms in result["memory_rms"].values())
    sizes = {entry["state_bytes"] for entry in result["after_tokens"].values()}
    assert sizes == {result["generation"]["state_bytes"]} and result["generation"]["tokens"] == 1_000_000


def test_every_picture_that_a_page_shows_is_there_and_no_other_is_kept():
    shown = set()
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "studies").glob("*.md")):
        for part in page.read_text(encoding="utf-8").split("](")[1:]:
            target = part.split(")")[0]
            if target.endswith((".png", ".gif")) and "://" not in target:
                shown.add((page.parent / target).resolve())
    assert shown == set((ROOT / "docs" / "pictures").iterdir())
