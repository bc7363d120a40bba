"""Pretrain a model on a text file of yours, from Python: SMT, then DMT.

python examples/03_pretrain_on_your_text.py my_text.txt runs/mine
"""

import sys

import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.data import load_data
from smt_hf.pretraining import SMTPretrainer, SMTPretrainingArguments, SMTTeacher, SMTTeacherConfig

text_file, output_dir = sys.argv[1:3]
max_steps = int(sys.argv[3]) if len(sys.argv) > 3 else 1500

# Windows of 128 tokens of context and 32 of future; bytes are the tokens.
data = load_data(text_file, sequence_length=160)
torch.manual_seed(0)
sizes = {"vocab_size": len(data.tokenizer), "hidden_size": 128, "num_memory_tokens": 4}
model = SMTForCausalLM(SMTConfig(**sizes, cell="gru"))
# The teacher says what to remember. It is needed in training only.
teacher = SMTTeacher(SMTTeacherConfig(**sizes, context_length=128, future_length=32))

trainer = SMTPretrainer(
    model=model,
    teacher=teacher,
    args=SMTPretrainingArguments(
        output_dir, max_steps=max_steps, learning_rate=2e-3, dmt_learning_rate=1e-3, dmt_fraction=0.5
    ),
    train_dataset=data.train,
    eval_dataset=data.validation,
    processing_class=data.tokenizer,
)
record = trainer.train()
print(f"free-running loss: {record.final['loss']:.3f} nats per byte; model in {output_dir}")
