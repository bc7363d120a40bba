"""Continue a prompt, streaming to the terminal, in constant memory."""

import argparse
import sys
from typing import Any

from .flags import add_number
from .loading import add_model_arguments, new_file


def add_sampling_arguments(parser: argparse.ArgumentParser, tokens: int = 200) -> None:
    add_number(
        parser, "--max-new-tokens", int, default=tokens, at_least=1, at_most=2**31,
        help=f"tokens to add [{tokens}]",
    )  # fmt: skip
    add_number(
        parser, "--temperature", float, default=0.8, at_least=0, help="0: always the most probable [0.8]"
    )
    add_number(
        parser, "--top-k", int, default=None, at_least=0, at_most=2**31,
        help="sample from the k most probable; 0: all [50]",
    )  # fmt: skip
    add_number(
        parser, "--top-p", float, default=None, at_least=0, above=0, at_most=1,
        help="sample from this much probability [1.0]",
    )  # fmt: skip
    add_number(parser, "--seed", int, default=None, at_least=0, at_most=2**63 - 1, help="of the sampling [0]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, optional=True)
    parser.add_argument("--prompt", help="text to continue [what comes from standard input]")
    parser.add_argument("--state", metavar="FILE", help="go on from the state in this file")
    parser.add_argument("--save-state", metavar="FILE", help="keep the state at the end in this file")
    add_sampling_arguments(parser)


def run(args: argparse.Namespace) -> int:
    import torch
    from transformers import TextStreamer

    from .loading import load_model

    if args.prompt is None and sys.stdin.isatty():
        raise ValueError("there is no --prompt; give one, or send the text on standard input.")
    prompt = sys.stdin.read() if args.prompt is None else args.prompt
    if not prompt:
        raise ValueError("--prompt is empty; give at least one character to continue.")
    drawn = sampling(args)
    target = None if args.save_state is None else new_file("--save-state", args.save_state)
    model, tokenizer = load_model(args)
    state = None if args.state is None else model.load_state(args.state)
    ids = ids_of(tokenizer, prompt).to(model.device)
    torch.manual_seed(args.seed or 0)
    options = {"max_new_tokens": args.max_new_tokens, "streamer": TextStreamer(tokenizer), **drawn}
    out = go_on(model, ids, state, **options)
    if target is not None:
        model.save_state(whole_state(model, out.cache, out.sequences[:, -1:]), target)
    return 0


def ids_of(tokenizer: Any, text: str) -> Any:
    """Ids (1, T). Raises ValueError for a text that the tokenizer does not know, or that is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # Python keeps bytes that it could not decode
        raise ValueError(f"the text {text!r} has a byte that is no UTF-8; give text as UTF-8.") from error
    try:
        ids = tokenizer(text, return_tensors="pt").input_ids
    except Exception as error:  # `tokenizers` raises nothing more specific
        raise ValueError(f"the text {text!r} is not in the tokenizer's vocabulary: {error}.") from error
    if ids.shape[1] == 0:
        raise ValueError(f"the text {text!r} has no tokens; give at least one.")
    return ids


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    """Options of `generate`. Raises ValueError for flags of a sampling that temperature 0 does not do."""
    if not args.temperature:
        given = {"--top-k": args.top_k, "--top-p": args.top_p, "--seed": args.seed}
        if names := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"--temperature is 0, which samples nothing; leave out {', '.join(names)}.")
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": args.temperature,
        "top_k": 50 if args.top_k is None else args.top_k,
        "top_p": 1.0 if args.top_p is None else args.top_p,
    }


def go_on(model: Any, ids: Any, state: Any, **options: Any) -> Any:
    """What `generate` returns for ids (1, T) after a state, or after nothing; its `cache` is the new state."""
    import torch

    seen = 0 if state is None else int(state.get_seq_length())
    mask = torch.ones(1, seen + ids.shape[1], dtype=torch.long, device=ids.device)
    # Whatever the model's generation_config says: without the state nothing could go on.
    options = {"use_cache": True, "return_dict_in_generate": True, **options}
    return model.generate(ids, attention_mask=mask, cache=state, **options)


def whole_state(model: Any, state: Any, last: Any) -> Any:
    """The state after the last token of an answer too, (1, 1), which `generate` made and did not read."""
    return model(last, cache=state, use_cache=True).cache
