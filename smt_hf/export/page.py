"""The model as a folder of static files: a page that runs it in a browser, from any file server."""

import json
import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .program import StepProgram, described

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RUNTIME_VERSION = "1.30.0"
# Of the version above: a browser runs a file of the CDN only where it is this one.
RUNTIME_INTEGRITY = {
    "ort.wasm.min.mjs": "sha384-SfFfy/pvthiOsgaw3KX0bV5TfQ6Iq+oY9KutMe4SxIuHH4cl+DCSD4rTsYOoG1tJ",
    "ort-wasm-simd-threaded.mjs": "sha384-XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56BIFFcAPerIF7FDad",
    "ort-wasm-simd-threaded.wasm": "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}
FROM_CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME_VERSION}/dist/"
LARGEST = 100_000_000  # bytes of model.onnx that a page may ask a visitor to download
PAGE = files("smt_hf.export") / "web"


def page_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """A byte-level BPE tokenizer as the page's bpe.js reads it.

    pieces: in order of their ids, in the characters that stand for bytes; null where an id has none.
    merges: pairs of pieces, the first first. words: whether text is split into words as GPT-2 does before it is
    merged. special: text → id of pieces that are taken whole. prefix: ids before every text.

    Raises ValueError for a tokenizer of another kind, which the page cannot run.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"the page cannot run the tokenizer {type(tokenizer).__name__}, {WANTED}.")
    definition = json.loads(backend.to_str())
    model, before = definition["model"], definition["pre_tokenizer"] or {}
    plain = all(
        not model.get(name)
        for name in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
                     "ignore_merges")
    )  # fmt: skip
    added = definition["added_tokens"]
    reasons = {
        f"its model is {model['type']}": model["type"] != "BPE" or not plain,
        "it changes text before it is split": definition["normalizer"] is not None,
        "it splits text in a way of its own": before.get("type") != "ByteLevel" or before["add_prefix_space"],
        "it has added tokens with rules of their own": any(
            one[rule] for one in added for rule in ("single_word", "lstrip", "rstrip", "normalized")
        ),
    }
    prefix = tokenizer("")["input_ids"]
    if tokenizer("a")["input_ids"] != [*prefix, *tokenizer("a", add_special_tokens=False)["input_ids"]]:
        reasons["it ends every text with a token"] = True
    if reason := next((reason for reason, holds in reasons.items() if holds), None):
        raise ValueError(f"the page cannot run this tokenizer ({reason}), {WANTED}.")
    special = {one["content"]: one["id"] for one in added}
    pieces: list[str | None] = [None] * len(tokenizer)
    for piece, index in model["vocab"].items():
        pieces[index] = None if piece in special else piece
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return {
        "pieces": pieces,
        "merges": merges,
        "words": before["use_regex"],
        "special": special,
        "prefix": prefix,
    }


WANTED = "only byte-level BPE as of GPT-2, or bytes; export to onnx and tokenize where you run it"


def check_runtime(folder: Path) -> None:
    """Raises ValueError for a folder without the files of onnxruntime-web that the page loads."""
    if missing := [name for name in RUNTIME_INTEGRITY if not (folder / name).is_file()]:
        raise ValueError(
            f"{folder} holds no {missing[0]}; give the folder dist of onnxruntime-web "
            f"(npm install onnxruntime-web@{RUNTIME_VERSION})."
        )


def check_size(bytes_of_model: int) -> None:
    """Raises ValueError for a model that is too much to download for a look at a page."""
    if bytes_of_model > LARGEST:
        raise ValueError(
            f"the model is {bytes_of_model:,} bytes, too large for a page (at most {LARGEST:,}); "
            f"try --int8, or export to onnx."
        )


def write_page(
    folder: Path, program: StepProgram, tokenizer: dict[str, Any], title: str, runtime: Path | None
) -> None:
    """Write all files but model.onnx into a folder that exists.

    tokenizer: of `page_tokenizer`. runtime: a folder whose onnxruntime-web is copied; without
    one, the page loads it from a CDN and checks it.
    """
    model = program.model.config
    if len(tokenizer["pieces"]) > model.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer['pieces'])} tokens, the model {model.vocab_size}; give its own."
        )
    for source in PAGE.iterdir():
        if source.name.endswith((".html", ".css", ".js", ".md")):
            text = source.read_text("utf-8").replace("{{title}}", in_html(title))
            (folder / source.name).write_text(text, "utf-8")
    if runtime is not None:
        (folder / "runtime").mkdir()
        for name in RUNTIME_INTEGRITY:
            shutil.copyfile(runtime / name, folder / "runtime" / name)
    manifest = {
        **described(program),
        "title": title,
        "runtime": FROM_CDN if runtime is None else "./runtime/",
        "integrity": RUNTIME_INTEGRITY if runtime is None else {},
        "tokenizer": tokenizer,
    }
    text = json.dumps(manifest, ensure_ascii=False, separators=(",", ":"))
    (folder / "model.json").write_text(text, "utf-8")


def in_html(text: str) -> str:
    """Letters, digits and plain signs: safe in HTML and in YAML alike."""
    return re.sub(r"[^\w .+-]", "", text).strip() or "model"
