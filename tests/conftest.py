"""What every test runs under: no network, a fixed seed, a cache of its own, no fight for cores."""

import gc
import os
from collections.abc import Iterator

# Both libraries read these when they are imported, so they are set before anything else is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

# Small tensors gain nothing from more threads, and parallel workers have one core each.
torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Leave what is there by now out of every later collection: each run of the trainer makes some."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point SMT_HF_CACHE at a folder of this session, so that no test reads a user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMT_HF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Start each test from the same random state, whatever ran before it.

    torch.manual_seed would also write down the whole stack for each kind of device that may come to be used.
    """
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)
