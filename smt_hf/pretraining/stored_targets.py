"""What a given teacher says of a whole corpus, read once: its k most probable next tokens at every position.

One file beside the packed corpus, 4 to 6 bytes for each of the k: ids, and log-probabilities as float16. A
reading that is stopped goes on where it was. N tokens, L of a row, V of the vocabulary.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from smt_hf.data.dataset import Batch, row_numbers
from smt_hf.data.packed_file import naming
from smt_hf.data.packing import TokenWindows
from smt_hf.runs.environment import default_device
from smt_hf.runs.locks import locked

from .soft_targets import SoftTargets

IDS, LOGPROBS = "soft_target_ids", "soft_target_logprobs"  # columns of a batch, both (B, L, k)
FORMAT_VERSION = 1  # raise it whenever the same teacher would give another file
ROWS = 16  # that the teacher reads at a time
# Of a row, the part that the next one reads again, so that no position but the corpus's first ones has less
# context. The reading takes 1 / (1 − 1/8) = 1.14 times a plain one.
OVERLAP = 8

logger = logging.getLogger(__name__)


class TaughtWindows(TokenWindows):
    """Windows whose batches carry what the teacher says after each token. targets: the file of `read_once`."""

    def __init__(self, windows: TokenWindows, targets: Path, kind: np.dtype[Any]) -> None:
        super().__init__(windows.path, windows.split, windows.sequence_length, windows.name)
        self.targets, self.kind_of_targets = targets, kind
        self._said: Any = np.memmap(targets, kind, "r")

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """As of the windows; also `soft_target_ids` int64 and `soft_target_logprobs` float32, (B, L, k)."""
        starts = row_numbers(indices, len(self))
        said = self._said[starts[:, None] + np.arange(self.sequence_length)]
        return {
            **super().__getitems__(indices),
            IDS: torch.from_numpy(said["ids"].astype(np.int64)),
            LOGPROBS: torch.from_numpy(said["logprobs"].astype(np.float32)),
        }

    def at_length(self, sequence_length: int) -> "TaughtWindows":
        return TaughtWindows(super().at_length(sequence_length), self.targets, self.kind_of_targets)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_said"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._said = np.memmap(self.targets, self.kind_of_targets, "r")


def spread(ids: torch.Tensor, logprobs: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """ids, logprobs (…, k) of the most probable tokens → log-probabilities (…, V): the rest has equal parts."""
    rest = (1 - logprobs.exp().sum(-1, keepdim=True)).clamp(min=1e-4)  # float16 has three digits
    each = rest.log() - math.log(vocab_size - ids.shape[-1])
    said = each.expand(*ids.shape[:-1], vocab_size).scatter(-1, ids, logprobs)
    return said - (rest + logprobs.exp().sum(-1, keepdim=True)).log()


def read_once(soft_targets: SoftTargets, windows: TokenWindows, top: int, quiet: bool = True) -> TaughtWindows:
    """Let the teacher read the corpus of `windows`, unless it has, and give windows that carry what it said.

    It reads rows as long as the windows. Raises ValueError for a `top` that is no smaller than the vocabulary,
    for what `SoftTargets.check` refuses, and where the disk has no room.
    """
    vocab_size = soft_targets.vocab_size
    if top >= vocab_size:
        raise ValueError(
            f"teacher_top is {top}, and there are {vocab_size} tokens; give a smaller number, or none."
        )
    soft_targets.check(windows[0]["input_ids"])
    kind = np.dtype([("ids", "<u2" if vocab_size <= 1 << 16 else "<u4", top), ("logprobs", "<f2", top)])
    identity = [
        FORMAT_VERSION,
        soft_targets.fingerprint,
        windows.fingerprint,
        windows.sequence_length,
        vocab_size,
        top,
    ]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    path = windows.path.with_name(f"said-{key}.bin")  # not by the text's path: texts move
    with locked(path.with_suffix(".lock")), naming(path):
        if not path.exists():
            part = path.with_suffix(".part")
            there, total = part.stat().st_size if part.exists() else 0, last_of(windows) * kind.itemsize
            if total - there > (free := shutil.disk_usage(path.parent).free):
                raise ValueError(
                    f"teacher_top {top} takes {total:,} bytes in {path.parent}, which has room for {free:,}; "
                    f"give a smaller number, or make room."
                )
            reads = f"goes on reading at {there / total:.0%}" if there else "reads the corpus once"
            logger.info(f"the teacher {reads}, into {path} ({total:,} bytes)")
            _read(soft_targets, windows, part, kind, quiet)
            part.rename(path)
    return TaughtWindows(windows, path, kind)


def last_of(windows: TokenWindows) -> int:
    """Positions that have a next token."""
    return windows.num_tokens - 1


def _read(
    soft_targets: SoftTargets, windows: TokenWindows, part: Path, kind: np.dtype[Any], quiet: bool
) -> None:
    """Append to `part` what the teacher says after each token that it has not spoken of yet."""
    top, length, end = kind["ids"].shape[0], windows.sequence_length, last_of(windows)
    again = length // OVERLAP
    with open(part, "ab") as file, tqdm(total=end, disable=quiet, unit=" tokens") as bar:
        # Whole batches only, so that a reading that was killed becomes the same file, up to the last rounding.
        batch = ROWS * (length - again)
        batches = (part.stat().st_size // kind.itemsize - again) // batch
        done = batches * batch + again if batches > 0 else 0
        file.truncate(done * kind.itemsize)
        bar.update(done)
        while done < end:
            first = max(0, done - again)
            # The last row ends with the corpus.
            starts = sorted({min(first + i * (length - again), end - length) for i in range(ROWS)})
            said = soft_targets(windows.__getitems__(starts)["input_ids"].to(default_device())).topk(top)
            if not said.values[..., 0].isfinite().all():
                raise ValueError(
                    f"{soft_targets.name} answers with numbers that are not finite; give another one."
                )
            logprobs = said.values.clamp(min=-1e4)  # float16 has nothing below -65,504, and KL no infinity
            records = np.empty(said.indices.shape[:2], kind)
            records["ids"], records["logprobs"] = said.indices.cpu().numpy(), logprobs.cpu().numpy()
            for start, row in zip(starts, records, strict=True):
                file.write(row[done - start :].tobytes())
                bar.update(start + length - done)
                done = start + length
        file.flush()
        os.fsync(file.fileno())
