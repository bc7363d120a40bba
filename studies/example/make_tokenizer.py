"""Train the byte-pair tokenizer of the example on the training half of a corpus: CORPUS FOLDER SIZE."""

import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from smt_hf.data.corpora import read_documents, split_documents
from smt_hf.data.tokenizer import END_OF_TEXT, PAD, text_tokenizer


def main(corpus: str, folder: str, size: str) -> None:
    texts: dict[str, list[str]] = {"train": [], "validation": []}
    for split, text in split_documents(read_documents(corpus)):
        texts[split].append(text)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=int(size),
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts["train"], trainer)
    tokenizer = text_tokenizer(backend)
    tokenizer.save_pretrained(folder)
    tokens = sum(len(tokenizer(text)["input_ids"]) for text in texts["validation"])
    size_of = sum(len(text.encode()) for text in texts["validation"])
    print(f"{len(tokenizer)} tokens, {size_of / tokens:.2f} bytes each on held-out text")


if __name__ == "__main__":
    main(*sys.argv[1:])
