"""Continue a prompt, streaming to the terminal, in constant memory."""

import argparse

from .flags import add_number
from .loading import add_model_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--prompt", required=True, help="text to continue")
    add_number(
        parser, "--max-new-tokens", int, default=200, at_least=1, at_most=2**31, help="tokens to add [200]"
    )
    add_number(
        parser, "--temperature", float, default=0.8, at_least=0, help="0: always the most probable [0.8]"
    )
    add_number(
        parser, "--top-k", int, default=50, at_least=0, at_most=2**31,
        help="sample from the k most probable; 0: all [50]",
    )  # fmt: skip
    add_number(
        parser,
        "--top-p",
        float,
        default=1.0,
        at_least=0,
        above=0,
        at_most=1,
        help="sample from this much probability [1.0]",
    )
    add_number(parser, "--seed", int, default=0, at_least=0, at_most=2**63 - 1, help="of the sampling [0]")


def run(args: argparse.Namespace) -> int:
    import torch
    from transformers import TextStreamer

    from .loading import load_model

    if not args.prompt:
        raise ValueError("--prompt is empty; give at least one character to continue.")
    model, tokenizer = load_model(args)
    try:
        inputs = tokenizer(args.prompt, return_tensors="pt").to(model.device)
    except Exception as error:  # `tokenizers` raises nothing more specific
        raise ValueError(f"--prompt {args.prompt!r} is not in the tokenizer's vocabulary: {error}.") from error
    torch.manual_seed(args.seed)
    sampling = (
        {
            "do_sample": True,
            "temperature": args.temperature,
            "top_k": args.top_k,
            "top_p": args.top_p,
        }
        if args.temperature
        else {"do_sample": False}
    )
    model.generate(**inputs, max_new_tokens=args.max_new_tokens, streamer=TextStreamer(tokenizer), **sampling)
    return 0
