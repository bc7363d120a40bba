"""Fine-tune with trl and peft: a paragraph a row, LoRA adapters on the cell alone, merged at the end.

pip install 'smt-hf[ecosystem]'
python examples/06_finetune_with_trl_and_lora.py runs/quickstart/text-gru my_text.txt runs/adapted
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import smt_hf  # noqa: F401 - registers the architecture with the Auto classes

# The linear layers of any cell; the readout and the embeddings stay as they are.
CELL_LAYERS = r".*\.cell\.(input_proj|\w+_proj\.\d+|blocks\.\d+\.\w+_proj)"

path, text_file, output_dir = sys.argv[1:4]
max_steps = int(sys.argv[4]) if len(sys.argv) > 4 else 100
paragraphs = [text for text in Path(text_file).read_text(encoding="utf-8").split("\n\n") if text.strip()]

trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(path),
    args=SFTConfig(
        output_dir,
        # Rows are padded, not packed: padding adds no step, while a packed row is read token after token.
        max_length=512,
        max_steps=max_steps,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        bf16=torch.cuda.is_available(),
        activation_checkpointing=False,  # trl's default is True: less memory, more time
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
    ),
    train_dataset=Dataset.from_dict({"text": paragraphs}),
    processing_class=AutoTokenizer.from_pretrained(path),
    peft_config=LoraConfig(r=8, target_modules=CELL_LAYERS),
)
result = trainer.train()
trainer.model.merge_and_unload().save_pretrained(output_dir)
trainer.processing_class.save_pretrained(output_dir)
print(f"training loss {result.training_loss:.3f}; model in {output_dir}")
