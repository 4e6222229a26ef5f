"""jax's MKOR beside its own matrix products, and its layer-wise steps beside jax's bare SGD loop.

Published as ratios (docs/methods/kfac.md, mkor.md), not asserted by the clock:
`python -m curvebench.procedures.kronecker_cost_jax`. Here: small sizes, few pairs.
"""

from __future__ import annotations

import pytest

from curvebench.procedures import kronecker_cost_jax as cost
from curvebench.statistics.pairs import Ratio


def sound(ratio: Ratio) -> bool:
    return ratio.n == 2 and 0 < ratio.low <= ratio.ratio <= ratio.high


def test_mkor_beside_its_products() -> None:
    assert sound(cost.mkor_beside_its_products(32, 8, 2))


@pytest.mark.parametrize("method", ["kfac", "mkor"])
def test_a_step_beside_the_bare_loop(method: str) -> None:
    assert sound(cost.step_beside_sgd("mlp", method, 2, batch=2, width=16))


def test_resnet20_is_torchs() -> None:
    from curvebench.tasks.cifar_resnet import blocks
    from curvebench.tasks.cifar_resnet_torch import torch_resnet

    theirs = {name: tuple(p.shape) for name, p in torch_resnet(list(blocks(20)), "group", 8).named_parameters()}
    assert {name: p.shape for name, p in cost.resnet20(1)[1].items()} == theirs
