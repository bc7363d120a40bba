"""The keywords that `forward` takes beside its parameters. No keyword vanishes: a name or a value that is not
known here is refused, since it may be what another version of the library calls the state or a document.

They are keywords because `transformers` acts on the parameters of `forward`: it computes positions for a
`position_ids`, and takes every parameter with "label" in its name for labels.
"""

from typing import Any, TypedDict

import torch


class RowKeywords(TypedDict, total=False):
    """position_ids (B or 1, T): 0 where a document of a packed row begins. seq_idx (B, T): its number.

    cu_seq_lens_q (documents + 1,): where the documents of one flattened row begin, and its end.
    output_hidden_states: return num_hidden_layers + 1 tensors (B, T, D) too: the embeddings first, what was
    read out last, and for each lower layer of the cell the memory token that ends its share.
    """

    position_ids: torch.Tensor | None
    seq_idx: torch.Tensor | None
    cu_seq_lens_q: torch.Tensor | None
    output_hidden_states: bool | None


class LossKeywords(RowKeywords, total=False):
    """shift_labels (B, T): labels aligned with the logits. num_items_in_batch: what the loss is divided by."""

    shift_labels: torch.Tensor | None
    num_items_in_batch: torch.Tensor | int | None


# Callers of any causal model pass these. They say once more what others say, or nothing to a memory: attention
# kernels want the first three beside cu_seq_lens_q, and the segments of a BERT tokenizer are all 0.
WITHOUT_EFFECT = {"cu_seq_lens_k", "max_length_q", "max_length_k", "token_type_ids"}
# The same, where only one value says nothing.
WITH_ONE_VALUE = {"output_attentions": False, "output_router_logits": False, "is_causal": True}


def refuse_unknown(keywords: dict[str, Any], known: type) -> None:
    """Raise TypeError for a keyword of `forward` that is not known, ValueError for one that is not supported.

    None says nothing, whatever the keyword.
    """
    for name, value in keywords.items():
        if value is None or name in known.__annotations__ or name in WITHOUT_EFFECT:
            continue
        if name not in WITH_ONE_VALUE:
            raise TypeError(
                f"forward knows no keyword {name!r}; beside its parameters it takes "
                f"{', '.join(sorted(known.__annotations__))}."
            )
        if value is not WITH_ONE_VALUE[name]:
            raise ValueError(
                f"{name}={value!r} asks for what a recurrent model does not have; leave it out or pass "
                f"{WITH_ONE_VALUE[name]}."
            )


def refuse_kept_beside_labels(logits_to_keep: int | torch.Tensor) -> None:
    """Raise ValueError for logits of fewer tokens than labels are of, before anything is read."""
    if not isinstance(logits_to_keep, int) or logits_to_keep != 0:
        kept = logits_to_keep if isinstance(logits_to_keep, int) else "a tensor"
        raise ValueError(
            f"logits_to_keep is {kept} and labels are of all tokens; give shift_labels of those that are kept, "
            f"or leave logits_to_keep out."
        )


def document_starts(keywords: RowKeywords, mask: torch.Tensor | None, shape: torch.Size) -> torch.Tensor | None:
    """Tokens that begin another document of a packed row, (B or 1, T, 1, 1) bool; None if nothing is packed.

    mask (B, T, 1, 1) or None; shape: (B, T). The first column never counts: before it stands m_∅, or the state
    that was given. Raises ValueError for positions of another length, and for cu_seq_lens_q of several rows.
    """
    for name in ("seq_idx", "position_ids"):
        given: Any = keywords.get(name)
        if given is not None and given.shape[-1] != shape[1]:
            raise ValueError(
                f"{name} has {given.shape[-1]} columns for {shape[1]} tokens; it must have as many."
            )
    seq_idx, position_ids = keywords.get("seq_idx"), keywords.get("position_ids")
    lengths = keywords.get("cu_seq_lens_q")
    if seq_idx is not None:
        starts = seq_idx != seq_idx.roll(1, dims=1)
    elif position_ids is not None:
        starts = position_ids == 0
    elif lengths is not None:
        if shape[0] != 1:
            raise ValueError(
                f"cu_seq_lens_q tells the documents of one flattened row, the input has {shape[0]} rows; give "
                f"position_ids or seq_idx."
            )
        flags = torch.zeros(shape[1] + 1, dtype=torch.bool, device=lengths.device)
        starts = flags.index_fill(0, lengths.flatten().long(), True)[None, :-1]
    else:
        return None
    starts = starts[:, :, None, None].clone()
    starts[:, 0] = False
    return starts if mask is None else starts & mask
