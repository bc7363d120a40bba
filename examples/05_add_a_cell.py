"""Add a cell of your own: one class, one line. It then works wherever a built-in one does.

    python examples/05_add_a_cell.py runs/leaky

From the command line the same cell is `smt-hf pretrain --cell my_module:LeakyCell …`.
"""

import sys

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from smt_hf import MemoryCell, SMTConfig, SMTForCausalLM, register_cell
from smt_hf.data import RetrievalTask
from smt_hf.pretraining import SMTPretrainer, SMTPretrainingArguments, SMTTeacher, SMTTeacherConfig


class LeakyCell(MemoryCell):
    """m' = (1 − a) ⊙ m + a ⊙ tanh(U m + W x), with one learned rate a for each entry."""

    def __init__(self, config):
        super().__init__(config)
        width = config.num_memory_tokens * config.hidden_size
        self.input_proj = nn.Linear(config.hidden_size, width)
        self.hidden_proj = nn.Linear(width, width)
        self.rate = nn.Linear(config.hidden_size, width)

    def project_inputs(self, inputs_embeds):  # all timesteps in one call
        both = self.input_proj(inputs_embeds), torch.sigmoid(self.rate(inputs_embeds))
        return torch.cat(both, dim=-1)

    def step(self, memory, inputs):  # one timestep; the model normalises the result
        x, a = inputs.chunk(2, dim=-1)
        m = memory.flatten(1)
        return torch.lerp(m, torch.tanh(x + self.hidden_proj(m)), a).view_as(memory)


register_cell("leaky", LeakyCell)

output_dir = sys.argv[1]
max_steps = int(sys.argv[2]) if len(sys.argv) > 2 else 300
task = RetrievalTask(32)
torch.manual_seed(0)
sizes = {"vocab_size": task.vocab_size, "hidden_size": 64, "num_memory_tokens": 2}
model = SMTForCausalLM(SMTConfig(**sizes, cell="leaky"))
teacher = SMTTeacher(SMTTeacherConfig(**sizes, context_length=32, future_length=32))
args = SMTPretrainingArguments(output_dir, max_steps=max_steps, batch_size=64, rollout_length=16)
validation = RetrievalTask(32, split="validation")
record = SMTPretrainer(model, teacher, args, task, validation, task.tokenizer()).train()

model = AutoModelForCausalLM.from_pretrained(output_dir)
print(f"{type(model.model.cell).__name__}: accuracy {record.final['accuracy']:.3f} (chance 0.125)")
