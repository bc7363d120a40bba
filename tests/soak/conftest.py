"""The options of the soak: how long it lasts, and which of its courses it takes."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--minutes", type=float, default=2.0, help="how long runs and servers are killed and started again"
    )
    parser.addoption("--soak-seed", type=int, default=None, help="repeat the soak that printed it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "soak":
            item.add_marker(pytest.mark.timeout(60 * config.getoption("--minutes", 2.0) + 1800))
