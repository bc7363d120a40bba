"""Judge the model in the package by lm-eval, on whole files that training did not see: CORPUS VERSION.

Each file is read from an empty memory to its end, unlike in `smt-hf evaluate`, whose cold starts are 256 tokens
apart. VERSION is that of Debian's package. Writes lm_eval.json, of which `ship.py` tells the card.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from smt_hf.data.corpora import read_documents, split_documents
from smt_hf.example import FOLDER
from smt_hf.runs.files import write_atomic

METRICS = ("bits_per_byte", "byte_perplexity")


def main(corpus: str, package: str) -> None:
    texts = [text for split, text in split_documents(read_documents(corpus)) if split == "validation"]
    task: dict[str, Any] = {
        "task": "held_out_files",
        "custom_dataset": lambda **_: {"test": Dataset.from_list([{"text": text} for text in texts])},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in METRICS],
    }
    lengths = [len(text.encode()) for text in texts]
    result = simple_evaluate(
        model=HFLM(pretrained=str(FOLDER), device="cpu", max_length=max(lengths), batch_size=1),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    measured = result["results"]["held_out_files"]
    judged = {
        "lm_eval": version("lm_eval"),
        "package": package,
        "files": len(texts),
        "bytes": sum(lengths),
        "longest_file": max(lengths),
        **{name: round(measured[f"{name},none"], 4) for name in METRICS},
    }
    write_atomic(Path(__file__).with_name("lm_eval.json"), json.dumps(judged, indent=2) + "\n")
    print(judged)


if __name__ == "__main__":
    main(*sys.argv[1:])
