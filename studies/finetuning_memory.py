"""Measures the peak memory of fine-tuning a model of the preset `small` for one step; prints one line.

    python studies/finetuning_memory.py gru --batch-size 8 --length 4096 --bptt-truncation 256 --checkpointing

The peak is that of the whole process (its maximum resident set), Python and libraries included.
"""

import argparse
import resource
import sys
import tempfile
import time

import torch
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling as Collator
from transformers import Trainer, TrainingArguments

from smt_hf import SMTForCausalLM
from smt_hf.data import byte_tokenizer
from smt_hf.pretraining.assembly import model_config
from smt_hf.runs.spec import RunSpec


def peak_mib() -> float:
    """Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cell")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--bptt-truncation", type=int)
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()

    options = {"bptt_truncation": args.bptt_truncation, "max_steps": 1, "output_dir": "unused"}
    config = model_config(RunSpec.of(preset="small", cell=args.cell, **options), vocab_size=258)
    rows = torch.randint(0, 256, (args.batch_size, args.length)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=SMTForCausalLM(config),
            args=TrainingArguments(
                folder,
                max_steps=1,
                per_device_train_batch_size=args.batch_size,
                activation_checkpointing=args.checkpointing,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_dict({"input_ids": rows}),
            data_collator=Collator(byte_tokenizer(), mlm=False),
        )
        before, start = peak_mib(), time.monotonic()
        trainer.train()
    print(
        f"{args.cell}: {args.batch_size} x {args.length} tokens, bptt_truncation {args.bptt_truncation}, "
        f"checkpointing {args.checkpointing}: peak {peak_mib():.0f} MiB, {before:.0f} before training, "
        f"{time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
