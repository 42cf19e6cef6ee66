"""The last tokens of samples that are being written, and what else the model might have written."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from selftaught.inference.pieces import Pieces
from selftaught.judging import TAIL, TOP, Token

Ints = npt.NDArray[np.int64]


class Tails:
    """A ring of TAIL tokens for each sample: numbers only, so it stays small."""

    def __init__(self, samples: int, vocabulary: int) -> None:
        shape = (samples, TAIL, min(TOP, vocabulary))
        self._tokens = np.zeros(shape, np.int32)
        self._logprobs = np.zeros(shape, np.float32)
        self._chosen = np.zeros(shape[:2], np.float32)

    def write(
        self,
        step: int,
        samples: Ints,
        running: npt.NDArray[np.bool_],
        logits: torch.Tensor,
        tokens: torch.Tensor,
    ) -> None:
        """Token `step` of the samples [rows] that are running [rows]: logits [rows, vocabulary] as
        the model gave them, neither tempered nor cut, and the tokens [rows] picked from them."""
        total = logits.float().logsumexp(-1, keepdim=True)
        best, ids = logits.topk(self._tokens.shape[2])
        chosen = logits.gather(-1, tokens[:, None])
        live, place = samples[running], step % TAIL
        self._tokens[live, place] = ids.cpu().numpy()[running]
        self._logprobs[live, place] = (best - total).cpu().numpy()[running]
        self._chosen[live, place] = (chosen - total)[:, 0].cpu().numpy()[running]

    def read(self, sample: int, written: list[int], pieces: Pieces) -> list[Token]:
        """The last tokens of a sample that wrote these, the first of them first."""
        found = []
        for step in range(max(0, len(written) - TAIL), len(written)):
            at = sample, step % TAIL
            alternatives = zip(self._tokens[at], self._logprobs[at], strict=True)
            top = [(pieces[int(token)], float(value)) for token, value in alternatives]
            found.append(Token(pieces[written[step]], float(self._chosen[at]), top))
        return found
