"""The model card of a run, from its run.json alone."""

import math
import re
import shlex
from pathlib import Path
from typing import Any

from smt_hf.data.kinds import METRICS, bits_per_byte, in_words
from smt_hf.models.library_names import TESTED_TRANSFORMERS
from smt_hf.runs.files import fingerprint, write_atomic
from smt_hf.runs.record import RunRecord

from .push import class_stays_behind, python_text

CARD = """\
# {title}

A recurrent language model ({parameters:,} parameters, {cell} cell) whose whole state is {state_bytes:,} bytes
per sequence, after ten tokens or a million. It was trained on {dataset} {how}.{given}

## Use

With smt-hf installed:

```python
import smt_hf
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({path})
tokenizer = AutoTokenizer.from_pretrained({path})
```

Without it, the code beside the weights does the same. It was tested with `transformers` {tested}:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({path}, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained({path}, trust_remote_code=True)
```
{own_cell}
Generate, in constant memory however long the text grows:

```python
inputs = tokenizer({prompt}, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=100, do_sample=True, temperature=0.8)
print(tokenizer.decode(output[0]))
```

Read once, keep the state in a file, go on from it later:

```python
import torch

state = model(**tokenizer({prompt}, return_tensors="pt"), logits_to_keep=1, use_cache=True).cache
model.save_state(state, "read.safetensors")

state = model.load_state("read.safetensors")
more = tokenizer({more}, return_tensors="pt").input_ids
seen = torch.ones(1, state.get_seq_length() + more.shape[1], dtype=torch.long)
output = model.generate(more, attention_mask=seen, cache=state, max_new_tokens=40)
print(tokenizer.decode(output[0]))
```

Fine-tune, by backpropagation through time (`Trainer` needs `accelerate`):

```python
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

texts = [{prompt}] * 8  # yours
model.config.bptt_truncation = 64  # the gradient stops after so many tokens
trainer = Trainer(
    model=model,
    args=TrainingArguments("finetuned", max_steps=100, learning_rate=3e-4, report_to="none"),
    train_dataset=[tokenizer(text) for text in texts],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
```

## How good it is

Free-running from a cold start: the model reads validation text by itself, with no teacher. One seed ({seed}).

{results}

## How big its state is

| tokens read | this model | key-value cache of a Transformer of the same width and depth (float32) |
|---|---|---|
{state_table}
{samples}
## How it was made

{command}

{facts}

## Limits

A small model of one corpus, made to study the method. It repeats what it has read, knows nothing else,
and must not be used to inform or to decide. It has one memory of fixed size: what does not fit is forgotten.
The figures are of one seed.

## Citation

```bibtex
@article{{kumar2026pretraining,
  title   = {{Pretraining Recurrent Networks without Recurrence}},
  author  = {{Kumar, Akarsh and Isola, Phillip}},
  journal = {{arXiv preprint arXiv:2606.06479}},
  year    = {{2026}}
}}
```

Trained with smt-hf, whose CITATION.cff says how to cite the software.
"""

HUB_DATASET = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def write_card(folder: Path, record: RunRecord) -> None:
    """Write README.md of a finished run, and its fingerprint into the record."""
    metadata = "---\n" + card_metadata(record).to_yaml() + "\n---\n\n"
    prompt, cell = record.prompt, record.cell
    facts = {
        "data fingerprint": record.data_fingerprint,
        "given teacher's fingerprint": record.teacher_fingerprint,
        "seed": record.seed,
        "training": f"{record.seconds:.0f} s, {record.steps:,} steps, {record.tokens:,} tokens",
        "sequential steps": f"{record.sequential_steps:,} (cell applications that wait for one another)",
        "machine": record.machine,
        "commit": record.git_commit,
        "versions": ", ".join(f"{name} {number}" for name, number in record.versions.items() if number),
    }
    own_cell = class_stays_behind(cell)
    body = CARD.format(
        title=in_prose(title(record)),
        tested=" and ".join(TESTED_TRANSFORMERS),
        parameters=record.parameters,
        cell=code_span(cell),
        state_bytes=record.state_bytes,
        dataset=code_span(dataset_name(record)),
        how=how(record),
        given=given_teacher(record),
        path=python_text(record.hub_name),
        prompt=python_text(prompt or "The "),
        more=python_text(" ".join(prompt.split()[:2]) or "next "),
        own_cell=f"\n{own_cell[0].upper()}{in_prose(own_cell[1:])}\n" if own_cell else "",
        seed=record.seed,
        results=results_table(record),
        state_table="\n".join(state_row(record, n) for n in (1_000, 32_000, 1_000_000)),
        samples=samples_section(record.samples),
        command=fenced(shlex.join(record.command)),
        facts="\n".join(f"- {name}: {in_prose(fact)}" for name, fact in facts.items() if fact is not None),
    )
    write_atomic(folder / "README.md", metadata + body)
    record.card = fingerprint(folder / "README.md")


def how(record: RunRecord) -> str:
    """By what the weights were trained. Only what had no gradient through several steps is without BPTT."""
    if record.method == "bptt":
        return "by backpropagation through time"
    names = [phase["name"] for phase in record.phases] or ["smt", "dmt"]
    by_labels = [name.upper() for name in names if name in ("smt", "dmt")]
    if not by_labels:
        return (
            "by backpropagation through time" if "bptt" in names else "not yet: its teacher's trunk alone was"
        )
    steps = (record.spec.get("dmt_gradient_steps") or 1) if "dmt" in names else 1
    phases = ", then ".join(by_labels) if len(by_labels) > 1 else f"{by_labels[0]} alone"
    if steps > 1:
        phases += f" with gradients through {steps} steps of the cell"
    if "trunk" in names:
        phases = f"its teacher's trunk first, {phases}"
    taught = f"by Supervised Memory Training ({phases})"
    if "bptt" in names:
        return f"{taught}, and at the end by backpropagation through time"
    return taught if steps > 1 else f"{taught}: without backpropagation through time"


def given_teacher(record: RunRecord) -> str:
    """What another language model taught, by the last part of its path."""
    teacher, weight = record.spec.get("teacher"), record.spec.get("teacher_weight")
    parts = []
    if weight:
        parts.append(f"{weight:g} of the readout's loss is the distance to what it expects of each next token")
    names = [phase["name"] for phase in record.phases] or [record.method]
    if {"smt", "dmt"} & set(names) and record.spec.get("encoder_type") == "given":
        parts.append("a linear map of its hidden states makes the labels")
    if record.spec.get("teacher_embeddings"):
        parts.append("embedding and head started from its own, narrowed")
    if not teacher or not parts:
        return ""
    name = teacher if HUB_DATASET.fullmatch(teacher) else Path(teacher).name
    return f" The language model {code_span(name)} taught it: {'; '.join(parts)}."


def in_prose(text: object) -> str:
    """A name or a figure on one line of Markdown, without being markup."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", "".join(c if c.isprintable() else "�" for c in line))


def code_span(text: str) -> str:
    """A name as code within a line, whatever backticks it holds."""
    line = " ".join(text.split())
    ticks = "`" * (longest_run(line) + 1)
    space = " " * (line[:1] == "`" or line[-1:] == "`")
    return f"{ticks}{space}{line}{space}{ticks}"


def fenced(text: str) -> str:
    """A block of code, whatever fence it holds."""
    fence = "`" * max(3, longest_run(text) + 1)
    return f"{fence}\n{text}\n{fence}"


def longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def title(record: RunRecord) -> str:
    return f"{record.cell} on {dataset_name(record)}, by {record.method.upper()}"


def dataset_name(record: RunRecord) -> str:
    """The data set as named to `--dataset`; of a path, which says little elsewhere, the last part."""
    path = Path(record.dataset)
    return path.name if path.exists() else record.dataset


def card_metadata(record: RunRecord) -> Any:
    """What the Hub reads of a card, as `ModelCardData`; `datasets` only where it is a data set of the Hub."""
    from huggingface_hub import EvalResult, ModelCardData

    dataset, final = record.dataset, record.final
    hub_dataset = config = None
    if HUB_DATASET.fullmatch(dataset) and not Path(dataset).exists():
        hub_dataset, _, config = dataset.partition(":")
    kind = judged_as(record)
    metric, name = METRICS[kind], in_words(kind)
    if kind == "task":
        value = final.get("accuracy")
    else:
        name += ", free-running from a cold start"
        value = bits_per_byte(final["loss"], record.bytes_per_token or 1.0) if final else None
    # Not in .eval_results/*.yaml too: its entries name a task of a data set that the Hub lists as a Benchmark,
    # and no metric, so bits per byte of any data set would stand on a leaderboard as that task's own score.
    results = []
    if value is not None and math.isfinite(value):
        result = EvalResult(
            task_type="text-generation",
            dataset_type=hub_dataset or re.sub(r"\W+", "-", dataset_name(record)).strip("-"),
            dataset_name=dataset_name(record),
            dataset_config=config or None,
            dataset_split=record.spec.get("validation_split") or "validation",
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 4),
        )
        results.append(result)
    teacher = record.spec.get("teacher")
    on_hub = teacher and HUB_DATASET.fullmatch(teacher) and not Path(teacher).exists()
    return ModelCardData(
        base_model=teacher if on_hub else None,
        language="en" if dataset == "python-docs" else None,
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["smt", "rnn", "recurrent", record.cell],
        datasets=[hub_dataset] if hub_dataset else None,
        metrics=[metric],
        model_name=title(record),
        eval_results=results or None,
    )


def judged_as(record: RunRecord) -> str:
    """The kind of the data, except that text whose bytes nobody knows is judged by accuracy, as a task is."""
    return "task" if record.bytes_per_token is None else record.data_kind


def results_table(record: RunRecord) -> str:
    final = record.final
    if not final:
        return "Not evaluated: the run had no validation data."
    if record.bytes_per_token is None:
        length = record.sequence_length
        answers = f"{final['targets']:,} answers in unseen sequences of length {length}"
        return f"Accuracy {final['accuracy']:.4f} on {answers}."
    per_token = record.bytes_per_token
    rows = [
        f"| {p['start']}–{p['end']} | {bits_per_byte(p['loss'], per_token):.3f} |" for p in final["by_horizon"]
    ]
    rows.append(f"| all {final['targets']:,} targets | {bits_per_byte(final['loss'], per_token):.3f} |")
    return "\n".join([f"| horizon (tokens) | {in_words(judged_as(record))} |", "|---|---|", *rows])


def state_row(record: RunRecord, tokens: int) -> str:
    model = record.model
    layers = model.get("num_hidden_layers", 1) + model.get("num_readout_layers", 2)
    cache = 2 * 4 * tokens * layers * model.get("hidden_size", 128)
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if cache >= u)
    return f"| {tokens:,} | {record.state_bytes:,} bytes | {cache / unit:.3g} {name} |"


def samples_section(samples: list[dict[str, str]]) -> str:
    """Indented, not fenced: a sample may hold any characters, a fence among them."""
    if not samples:
        return ""
    blocks = []
    for number, sample in enumerate(samples, start=1):
        text = f"{sample['prompt']}▸{sample['continuation']}"
        shown = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
        blocks.append(f"{number}:\n\n" + "\n".join(f"    {line}" for line in shown.split("\n")))
    intro = "Sampled, not selected; at `▸` the validation text ends and the model goes on."
    return "\n".join(["", "## Samples", "", intro, "", "\n\n".join(blocks), ""])
