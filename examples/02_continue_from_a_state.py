"""Read a long prompt once, save its state, and go on from the file as often as you like.

The state is the memory: a few kilobytes, however long the prompt was. Another process, or another machine
with the same model, goes on from the file without ever seeing the prompt.

    python examples/02_continue_from_a_state.py runs/quickstart/text-gru
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import smt_hf  # noqa: F401 - registers the architecture with the Auto classes

path = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(path)
tokenizer = AutoTokenizer.from_pretrained(path)

prompt = tokenizer("This function takes two arguments. " * 50, return_tensors="pt")
with torch.no_grad():
    state = model(**prompt, logits_to_keep=1, use_cache=True).cache
file = Path(tempfile.mkdtemp()) / "prompt.safetensors"
model.save_state(state, file)
print(f"{state.get_seq_length()} tokens read into a file of {file.stat().st_size} bytes")

# One state, forked to a batch of two questions of equal length.
questions = tokenizer(["The first ", "The other "], return_tensors="pt").input_ids
state = model.load_state(file)
state.batch_repeat_interleave(2)
# The mask covers what the state has read as well: that is how `generate` knows the ids are only the new ones.
seen = torch.ones(2, state.get_seq_length() + questions.shape[1], dtype=torch.long)
output = model.generate(
    questions, attention_mask=seen, cache=state, max_new_tokens=40, return_dict_in_generate=True
)
for row in output.sequences:
    print(tokenizer.decode(row))

# A dialogue: the returned state has read everything but the last token, so a turn costs its own tokens only.
turn = tokenizer(["\nThe next ", "\nThe last "], return_tensors="pt").input_ids
turn = torch.cat([output.sequences[:, -1:], turn], dim=1)
state = output.cache
seen = torch.ones(2, state.get_seq_length() + turn.shape[1], dtype=torch.long)
for row in model.generate(turn, attention_mask=seen, cache=state, max_new_tokens=40):
    print(tokenizer.decode(row))
