"""Continue a prompt, streaming to the terminal, in constant memory."""

import argparse

from .loading import add_model_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--prompt", required=True, help="text to continue")
    parser.add_argument("--max-new-tokens", type=int, default=200, help="tokens to add [200]")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the most probable [0.8]")
    parser.add_argument("--top-k", type=int, default=50, help="sample from the k most probable; 0: all [50]")
    parser.add_argument("--top-p", type=float, default=1.0, help="sample from this much probability [1.0]")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling [0]")


def run(args: argparse.Namespace) -> int:
    import torch
    from transformers import TextStreamer

    from .loading import load_model, quiet

    quiet()
    if not args.prompt:
        raise ValueError("--prompt is empty; give at least one character to continue.")
    if args.temperature < 0:
        raise ValueError(f"--temperature is {args.temperature}; it must be 0 or more.")
    if not 0 < args.top_p <= 1:
        raise ValueError(f"--top-p is {args.top_p}; it must be above 0 and at most 1.")
    if args.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {args.max_new_tokens}; it must be at least 1.")
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
