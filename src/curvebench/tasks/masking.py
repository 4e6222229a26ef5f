"""BERT's masking of a window's tokens: fixed masks for evaluation, fresh ones for every training batch.

Of ``inner`` positions (all but [CLS] and [SEP]) ``k`` are chosen; 80 % of these become [MASK], 10 % another token, 10 %
stay (Devlin et al. 2019). Inputs ``[n, length + k]``: tokens, then chosen positions; targets ``[n, k]``: what was
there. Fresh masks are a function of (task, seed block, step): a window has other ones in every epoch, the same for
every method and in both frameworks (dynamic masking, as in RoBERTa, Liu et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.data.wordpiece import SPECIAL
from curvebench.spec import seed

STAYS = -1
"""In the place of a token to show: the token stays."""


class Masks(NamedTuple):
    """Where each of n windows is masked and by what: ``[n, k]`` both."""

    positions: npt.NDArray[np.int64]
    shown: npt.NDArray[np.int64]


def draw_masks(rng: np.random.Generator, n: int, inner: int, k: int, vocabulary: int) -> Masks:
    """Positions in ``1..inner``, sorted, and the tokens to show there, :data:`STAYS` for the token itself."""
    positions = 1 + np.sort(np.argsort(rng.random((n, inner)), axis=1)[:, :k], axis=1)
    fate = rng.random(positions.shape)
    other = rng.integers(SPECIAL["[MASK]"] + 1, vocabulary, positions.shape)
    return Masks(positions, np.where(fate < 0.8, SPECIAL["[MASK]"], np.where(fate < 0.9, other, STAYS)))


@dataclass(frozen=True)
class FreshMasks:
    """Masks a training batch anew.

    Args:
        length: of a window, [CLS] and [SEP] included.
        k: positions that are chosen.
        vocabulary: number of tokens.
    """

    length: int
    k: int
    vocabulary: int

    @property
    def columns(self) -> int:
        """Positions, then what they show."""
        return 2 * self.k

    def draws(self, base: int, step: int, batch: int) -> npt.NDArray[np.int32]:
        """``[batch, 2 k]``: positions, then tokens to show."""
        rng = np.random.Generator(np.random.Philox(seed("masks", base, step)))
        masks = draw_masks(rng, batch, self.length - 2, self.k, self.vocabulary)
        return np.concatenate(masks, axis=1).astype(np.int32)

    def in_torch(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """Put the tokens of the fixed masks back and hide those of ``draws``."""
        import torch

        whole = inputs[:, : self.length].scatter(1, inputs[:, self.length :], targets)
        positions, shown = draws[:, : self.k].long(), draws[:, self.k :].long()
        fresh = whole.gather(1, positions)
        tokens = whole.scatter(1, positions, torch.where(shown == STAYS, fresh, shown))
        return torch.cat([tokens, positions], dim=1), fresh

    def in_jax(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """The twin."""
        import jax.numpy as jnp

        rows = jnp.arange(len(inputs))[:, None]
        whole = inputs[:, : self.length].at[rows, inputs[:, self.length :]].set(targets)
        positions, shown = draws[:, : self.k], draws[:, self.k :]
        fresh = jnp.take_along_axis(whole, positions, axis=1)
        tokens = whole.at[rows, positions].set(jnp.where(shown == STAYS, fresh, shown))
        return jnp.concatenate([tokens, positions], axis=1), fresh
