"""Fine-tune with `transformers.Trainer`. Its `labels` loss is backpropagation through time.

python examples/04_finetune_with_trainer.py runs/quickstart/text-gru my_text.txt runs/tuned
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers import DataCollatorForLanguageModeling as Collator

import smt_hf  # noqa: F401 - registers the architecture with the Auto classes

path, text_file, output_dir = sys.argv[1:4]
max_steps = int(sys.argv[4]) if len(sys.argv) > 4 else 100
model = AutoModelForCausalLM.from_pretrained(path)
tokenizer = AutoTokenizer.from_pretrained(path)
# Gradients go back through so many tokens and no further.
model.config.bptt_truncation = 64

ids = tokenizer(Path(text_file).read_text(encoding="utf-8")).input_ids
rows = [ids[i : i + 128] for i in range(0, len(ids) - 128, 128)]
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir,
        max_steps=max_steps,
        per_device_train_batch_size=8,
        learning_rate=3e-4,
        report_to=[],
        dataloader_pin_memory=torch.cuda.is_available(),
    ),
    train_dataset=Dataset.from_dict({"input_ids": rows}),
    data_collator=Collator(tokenizer, mlm=False),
    processing_class=tokenizer,
)
result = trainer.train()
trainer.save_model(output_dir)
print(f"training loss {result.training_loss:.3f}; model in {output_dir}")
