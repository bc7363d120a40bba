"""Embedding and head of a given language model, narrowed, as those that training starts from."""

import torch
from transformers.modeling_utils import PreTrainedModel

from .soft_targets import SoftTargets


@torch.no_grad()
def start_from(given: SoftTargets, *models: PreTrainedModel) -> None:
    """Give each model the principal components of the given one's token vectors, in embedding and head.

    Of (V, W) vectors the first min(W, D) components are kept, scaled to the spread that the model has drawn for
    its own (V, D). Columns beyond W stay as they were drawn. The mean over the tokens is left out: added to a
    head, it changes no distribution, and added to an embedding, it tells no token from another.
    """
    for part in ("get_input_embeddings", "get_output_embeddings"):
        vectors = principal(getattr(given.model, part)().weight.detach().to("cpu", torch.float32))
        for model in models:
            own = getattr(model, part)().weight
            rows, columns = min(len(own), len(vectors)), min(own.shape[1], vectors.shape[1])
            taken = vectors[:rows, :columns]
            own[:rows, :columns] = (taken * (own.std() / taken.std().clamp_min(1e-12))).to(own)


def principal(vectors: torch.Tensor) -> torch.Tensor:
    """Principal components (N, W) of N vectors (N, W), those of most variance first."""
    centred = vectors - vectors.mean(0)
    _, axes = torch.linalg.eigh((centred.T @ centred).double())
    return centred @ axes.flip(1).to(centred)
