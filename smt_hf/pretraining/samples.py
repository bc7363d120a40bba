"""What a finished model writes, for its card."""

from typing import Any

import torch

from smt_hf.data.dataset import SequenceDataset
from smt_hf.models.modeling_smt import SMTForCausalLM

# A few lines each: enough to judge the language, and less than a second of work.
SAMPLES, PROMPT_TOKENS, NEW_TOKENS = 3, 48, 160
TEMPERATURE, SEED = 0.8, 0
# Few, so that every row holds them.
EXAMPLE_TOKENS = 4


def texts_for_card(model: SMTForCausalLM, tokenizer: Any, dataset: SequenceDataset | None) -> dict[str, Any]:
    """`samples`, see `sample_texts`, and `prompt`: symbols to try the model with, if it does not read text."""
    prompt = ""
    if tokenizer is not None and dataset is not None and dataset.kind != "text":
        prompt = tokenizer.decode(dataset[0]["input_ids"][:EXAMPLE_TOKENS])
    return {"prompt": prompt, "samples": sample_texts(model, tokenizer, dataset)}


@torch.no_grad()
def sample_texts(
    model: SMTForCausalLM, tokenizer: Any, dataset: SequenceDataset | None
) -> list[dict[str, str]]:
    """Continuations of the first tokens of a few validation rows, `prompt` and `continuation` of each.

    The same every time for the same weights. Empty without a tokenizer or text to continue.
    """
    if tokenizer is None or dataset is None or dataset.kind != "text":
        return []
    prompts = dataset.evaluation_rows(SAMPLES, PROMPT_TOKENS)[0][:, :PROMPT_TOKENS].to(model.device)
    training = model.training
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        output: Any = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=NEW_TOKENS,
            do_sample=True,
            temperature=TEMPERATURE,
            pad_token_id=tokenizer.pad_token_id,
        )
    model.train(training)
    return [
        {
            "prompt": tokenizer.decode(row[: prompts.shape[1]], skip_special_tokens=True),
            "continuation": tokenizer.decode(row[prompts.shape[1] :], skip_special_tokens=True),
        }
        for row in output
    ]
