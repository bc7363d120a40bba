"""The model card of a run, from its run.json alone."""

import math
import shlex
from pathlib import Path
from typing import Any

CARD = """\
# {title}

A recurrent language model ({parameters:,} parameters, `{cell}` cell) whose whole state is {state_bytes:,} bytes
per sequence, after ten tokens or a million. It was trained on `{dataset}` {how}.

```python
import smt_hf
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{path}")
tokenizer = AutoTokenizer.from_pretrained("{path}")
inputs = tokenizer("{prompt}", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))
```

## How good it is

Free-running from a cold start: the model reads validation text by itself, with no teacher.

{results}

## How big its state is

| tokens read | this model | key-value cache of a Transformer of the same width and depth (float32) |
|---|---|---|
{state_table}

## How it was made

```
{command}
```

{facts}

## Limits

A small model of one corpus, made to study the method. It repeats what it has read, knows nothing else,
and must not be used to inform or to decide. The figures are of one seed.

## Citation

The method: Kumar & Isola, *Pretraining Recurrent Networks without Recurrence*, arXiv 2606.06479 (2026).
Trained with smt-hf, whose CITATION.cff says how to cite the software.
"""

HOW = {
    "smt": "by Supervised Memory Training (SMT, then DMT): without backpropagation through time",
    "bptt": "by backpropagation through time, as a baseline",
}


def write_card(folder: Path, record: dict[str, Any]) -> None:
    """Write README.md of a finished run."""
    from huggingface_hub import ModelCardData

    task = record["data_kind"] == "task"
    cell = record["cell"]
    data = ModelCardData(
        language="en" if record["dataset"] == "python-docs" else None,
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["smt", "rnn", "recurrent", cell],
    )
    metadata = "---\n" + data.to_yaml() + "\n---\n\n"
    dataset = record["dataset"]
    facts = {
        "data fingerprint": record["data_fingerprint"],
        "seed": record["seed"],
        "training": f"{record['seconds']:.0f} s, {record['steps']:,} steps, {record['tokens']:,} tokens",
        "sequential steps": f"{record['sequential_steps']:,} (cell applications that wait for one another)",
        "machine": record["machine"],
        "commit": record["git_commit"],
        "versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items() if number),
    }
    body = CARD.format(
        title=f"{cell} on {dataset}, by {record['method'].upper()}",
        parameters=record["parameters"],
        cell=cell,
        state_bytes=record["state_bytes"],
        dataset=dataset,
        how=HOW[record["method"]],
        path=record["arguments"].get("hub_model_id") or folder.name,
        prompt="n0 n1 <|marker|> 5 n2 <|query|>" if task else "The ",
        results=results_table(record),
        state_table="\n".join(state_row(record, n) for n in (1_000, 32_000, 1_000_000)),
        command=shlex.join(record["command"]),
        facts="\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
    )
    temporary = folder / ".README.md.part"
    temporary.write_text(metadata + body, encoding="utf-8")
    temporary.replace(folder / "README.md")


def results_table(record: dict[str, Any]) -> str:
    final = record.get("final") or {}
    if not final:
        return "Not evaluated: the run had no validation data."
    if record["bytes_per_token"] is None:
        length = record["sequence_length"]
        return f"Accuracy {final['accuracy']:.4f} on {final['targets']:,} unseen sequences of length {length}."
    rows = [
        f"| {p['start']}–{p['end']} | {p['loss'] / math.log(2) / record['bytes_per_token']:.3f} |"
        for p in final["by_horizon"]
    ]
    return "\n".join(["| horizon (tokens) | bits per byte |", "|---|---|", *rows])


def state_row(record: dict[str, Any], tokens: int) -> str:
    model = record["model"]
    layers = model.get("num_hidden_layers", 1) + model.get("num_readout_layers", 2)
    cache = 2 * 4 * tokens * layers * model.get("hidden_size", 128)
    return f"| {tokens:,} | {record['state_bytes']:,} bytes | {cache:,} bytes |"
