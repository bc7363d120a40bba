"""The packaging files agree with one another and with the package."""

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import smt_hf
from smt_hf.models.library_names import TESTED_TRANSFORMERS

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
REPOSITORY = "https://github.com/smt-hf/smt-hf"


def declared_requirements() -> list[Requirement]:
    """Every direct dependency: core, extras and build.

    Without those under a marker: they are for a Python that constraints.txt was not tested on.
    """
    lines = [*PROJECT["dependencies"], *PYPROJECT["build-system"]["requires"]]
    for extra in PROJECT["optional-dependencies"].values():
        lines += extra
    return [r for r in map(Requirement, lines) if r.marker is None]


def pinned_versions(file: str = "constraints.txt") -> dict[str, Version]:
    """Canonical name -> version for every line of a file of constraints."""
    pins: dict[str, Version] = {}
    for line in (ROOT / file).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = Version(version)
    return pins


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    releases = re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d{2}-\d{2})$", changelog, re.MULTILINE)
    top_version, top_date = releases[0]
    assert smt_hf.__version__ == citation["version"] == top_version
    assert str(citation["date-released"]) == top_date


@pytest.mark.parametrize("requirement", declared_requirements(), ids=lambda r: r.name)
def test_tested_version_is_inside_the_declared_range(requirement: Requirement) -> None:
    pins = pinned_versions()
    name = canonicalize_name(requirement.name)
    assert name in pins, f"constraints.txt does not pin {name}"
    assert pins[name] in requirement.specifier


def test_the_oldest_versions_that_are_tested_are_those_that_are_allowed() -> None:
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["experiments"]]
    floors = {}
    for requirement in map(Requirement, lines):
        (floor,) = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
        floors[canonicalize_name(requirement.name)] = floor
    assert pinned_versions("constraints-oldest.txt") == floors


def test_transformers_may_be_one_minor_release_ahead_of_what_is_tested_and_no_more() -> None:
    (requirement,) = [r for r in declared_requirements() if r.name == "transformers" and not r.extras]
    oldest, newest = (Version(version) for version in (TESTED_TRANSFORMERS[0], TESTED_TRANSFORMERS[-1]))
    allowed = requirement.specifier.contains
    assert allowed(f"{oldest.major}.{oldest.minor}.0") and not allowed(f"{oldest.major}.{oldest.minor - 1}.9")
    assert allowed(f"{newest.major}.{newest.minor + 1}.9") and not allowed(
        f"{newest.major}.{newest.minor + 2}.0"
    )
    for name, extra in PROJECT["optional-dependencies"].items():
        for other in (Requirement(line) for line in extra):
            assert other.name != "transformers" or other.specifier == requirement.specifier, name


def test_links_of_the_readme_work_where_pypi_shows_it() -> None:
    """PyPI has no folder beside the page: links are whole addresses, and those of ours lead to files."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)\s]*)\)", text)
    assert links and [link for link in links if not link.startswith("https://")] == []
    ours = [
        match[1] for link in links if (match := re.match(rf"{REPOSITORY}/(?:blob|tree)/main/([^?#]*)", link))
    ]
    assert ours and any(path.endswith(".png") for path in ours)
    if (ROOT / "results").is_dir():  # a source distribution has no pictures and no results
        assert [path for path in ours if not (ROOT / path).exists()] == []


def test_the_project_names_its_addresses_and_the_pythons_that_are_tested() -> None:
    urls = PROJECT["urls"]
    assert set(urls) == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert all(url.startswith(REPOSITORY) for url in urls.values())
    named = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    workflow = ROOT / ".github" / "workflows" / "tests.yml"
    if workflow.is_file():  # not in a source distribution
        jobs = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]
        assert named == set(jobs["test"]["strategy"]["matrix"]["python"])


def test_constraints_name_no_local_build() -> None:
    """`2.13.0+cpu` exists on some machines only; `2.13.0` matches every build of it."""
    assert not [name for name, version in pinned_versions().items() if version.local]


def test_dev_extra_equals_dev_group() -> None:
    assert PROJECT["optional-dependencies"]["dev"] == PYPROJECT["dependency-groups"]["dev"]


def test_entry_point_is_callable() -> None:
    module, _, function = PROJECT["scripts"]["smt-hf"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_licence_is_apache_2_everywhere() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"


def test_package_says_it_is_typed() -> None:
    assert (Path(smt_hf.__file__).parent / "py.typed").is_file()
