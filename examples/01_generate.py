"""Load a model and generate: greedy, sampled, by beam search, streamed, and a padded batch at once.

python examples/01_generate.py runs/quickstart/text-gru
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

import smt_hf  # noqa: F401 - registers the architecture with the Auto classes

path = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(path)
tokenizer = AutoTokenizer.from_pretrained(path)
torch.manual_seed(0)

inputs = tokenizer("The value of ", return_tensors="pt")
print("greedy: ", tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
print("beams:  ", tokenizer.decode(model.generate(**inputs, max_new_tokens=40, num_beams=4)[0]))

print("sampled, as it comes:")
model.generate(**inputs, max_new_tokens=80, do_sample=True, temperature=0.8, streamer=TextStreamer(tokenizer))

# Prompts of different lengths: padded tokens leave the memory as it is, so each row is as if alone.
batch = tokenizer(["Return the ", "If the argument is not given, "], return_tensors="pt", padding=True)
for row in model.generate(**batch, max_new_tokens=40):
    print("batch:  ", tokenizer.decode(row, skip_special_tokens=True))
