"""Write a model as a program of another runtime, compared with PyTorch, or as a page for a browser."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from .loading import add_model_arguments

ONNX = ("onnx", "onnxruntime", "onnxscript")
# What each target needs, and the extra that has it.
NEEDS = {
    "onnx": (ONNX, "export"),
    "openvino": ((*ONNX, "openvino"), "export"),
    "executorch": (("executorch",), "executorch"),
    "web": (ONNX, "export"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, optional=True)
    parser.add_argument("--to", required=True, choices=tuple(NEEDS), help="which runtime")
    parser.add_argument("--output-dir", required=True, type=Path, help="a new folder")
    parser.add_argument("--int8", action="store_true", help="with onnx and web: weights and products of 8 bits")
    parser.add_argument(
        "--runtime", metavar="DIR", type=Path,
        help="with web: the folder dist of onnxruntime-web, which is copied; without it the page uses a CDN",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.runtime is not None and args.to != "web":
        raise ValueError(f"--runtime is for --to web; leave it out with --to {args.to}.")
    needed, extra = NEEDS[args.to]
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ValueError(f"--to {args.to} needs {', '.join(missing)}; pip install 'smt-hf[{extra}]'.")
    from smt_hf.export.export import export

    from .loading import load_model, new_file

    folder = new_file("--output-dir", args.output_dir)
    model, tokenizer = load_model(args)
    title = Path(args.model).resolve().name if Path(args.model).exists() else args.model.split("/")[-1]
    found, small = export(model, tokenizer, args.to, folder, title, args.int8, args.runtime)
    for kind, one in (("float32", found), ("int8", small)):
        if one is not None:
            print(
                f"{kind}: the largest difference of a logit is {one.difference:.1e} over {one.tokens} tokens; "
                f"{one.same} of {one.tokens} are PyTorch's most probable"
            )
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>14,}  {path.relative_to(folder).as_posix()}")
    if args.to == "web":
        print(f"look at it: python -m http.server -d {folder}, then open http://localhost:8000")
    return 0
