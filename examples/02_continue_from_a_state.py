"""Read a long prompt once, keep its state, and go on from it as often as you like.

The state is the memory: a few kilobytes, however long the prompt was.

    python examples/02_continue_from_a_state.py runs/quickstart/text-gru
"""

import copy
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import smt_hf  # noqa: F401 - registers the architecture with the Auto classes

path = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(path)
tokenizer = AutoTokenizer.from_pretrained(path)

prompt = tokenizer("This function takes two arguments. " * 50, return_tensors="pt")
with torch.no_grad():
    state = model(**prompt, logits_to_keep=1).past_key_values
memory = state.layers[0].read()
print(f"{state.get_seq_length()} tokens read into {memory.nbytes} bytes")

for question in ("The first ", "The second "):
    more = tokenizer(question, return_tensors="pt").input_ids
    # generate() writes into the state it is given, so each question gets a copy of its own.
    fork = copy.deepcopy(state)
    seen = torch.ones(1, state.get_seq_length() + more.shape[1], dtype=torch.long)
    output = model.generate(more, attention_mask=seen, past_key_values=fork, max_new_tokens=40)
    print(tokenizer.decode(output[0]))
