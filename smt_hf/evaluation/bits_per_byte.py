"""Bits per byte as a metric of `evaluate`: losses in nats and the texts they are of.

    metric = evaluate.load(bits_per_byte.__file__)
    metric.compute(predictions=[nats of each text], references=[each text])

A copy of this file in a Space on the Hub is the same metric; the Space needs smt-hf in its requirements.
"""

import datasets
import evaluate

from smt_hf.data import kinds

DESCRIPTION = """\
Bits that a language model needs for one byte of text: what its tokenizer is cancels out, so models with
different tokenizers can be compared. Lower is better; 8 is knowing nothing.
"""

INPUTS = """\
Args:
    predictions: for every text, its negative log-likelihood in nats, summed over its tokens.
    references: the texts, as strings; a text counts with the bytes of its UTF-8 encoding.
Returns:
    bits_per_byte: all nats / ln 2 / all bytes, so a long text weighs more than a short one.
Raises:
    ValueError: if there is no byte of text at all.
"""

CITATION = """\
@article{gao2020pile,
  title={The Pile: An 800GB Dataset of Diverse Text for Language Modeling},
  author={Gao, Leo and others},
  journal={arXiv preprint arXiv:2101.00027},
  year={2020}
}
"""


class BitsPerByte(evaluate.Metric):
    """Σ nats / (ln 2 · Σ bytes) over all texts. Source: Gao et al. 2020, section 3.1."""

    def _info(self):
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references):
        num_bytes = sum(len(text.encode()) for text in references)
        if num_bytes == 0:
            raise ValueError("the references hold no byte of text; bits per byte need at least one.")
        return {"bits_per_byte": float(kinds.bits_per_byte(sum(predictions), num_bytes))}
