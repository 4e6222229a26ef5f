"""Products with k vectors at once equal k products, are counted as k, and are refused like them."""

from __future__ import annotations

import pytest
import tiny
import torch

from curvebench.errors import UndeclaredQueryError
from curvebench.oracle.dense_torch import dense, diagonal
from curvebench.spec import Query

each = pytest.mark.parametrize("problem", ["squared", "logistic", "mlp", "twice", "conv", "norm"])


@each
@pytest.mark.parametrize("query", ["hvp", "ggnvp"])
def test_products_at_once_equal_products_one_by_one(problem: str, query: str) -> None:
    asked = tiny.Torch(tiny.PROBLEMS[problem](0.1))
    vectors = [torch.randn(5, *p.shape, dtype=torch.float64) for p in asked.oracle.parameters]
    point = asked.oracle.at()
    together = getattr(point, f"{query}s")(vectors)
    assert asked.counts()[query] == 5
    assert asked.counts()["samples"] == 5 * len(point.batch[0])
    for j in range(5):
        alone = getattr(point, query)([v[j] for v in vectors])
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[j], b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("query", [Query.HVP, Query.GGNVP])
def test_a_matrix_costs_d_products(query: Query) -> None:
    asked = tiny.Torch(tiny.mlp(0.1))
    live, d = asked.oracle.parameters, asked.problem.dimension
    point = asked.oracle.at()
    products = getattr(point, f"{query}s")
    M = dense(products, live)
    assert M.shape == (d, d)
    assert torch.equal(M, M.T)
    assert asked.counts()[str(query)] == d
    assert torch.allclose(diagonal(products, live), M.diagonal(), rtol=1e-12)


def test_products_that_were_not_declared_or_announced_are_refused() -> None:
    asked = tiny.Torch(tiny.mlp(0.1), [Query.GRADIENT, Query.HVP])
    vectors = [torch.ones(2, *p.shape, dtype=torch.float64) for p in asked.oracle.parameters]
    with pytest.raises(UndeclaredQueryError, match="ggnvp"):
        asked.oracle.at().ggnvps(vectors)
    with pytest.raises(UndeclaredQueryError, match="opened with needs"):
        asked.oracle.at(needs=[Query.GRADIENT]).hvps(vectors)
    assert asked.counts()["hvp"] == 0
