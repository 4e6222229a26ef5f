"""The costs that asv tracks for every method's step: exact counts, and the refusal of what would take for ever."""

from __future__ import annotations

import pytest

from curvebench import cards
from curvebench.errors import DeviceError
from curvebench.procedures.step_cost import Stepper, Unaffordable, cost, implementations, network


def test_every_implementation_of_every_card_has_a_row() -> None:
    rows = implementations()
    assert len(rows) == len(set(rows))
    assert rows == tuple(
        f"{card.name}/{framework}"
        for card in cards.load_all("methods")
        for framework in ("torch", "jax")
        if framework in card.implementation  # type: ignore[attr-defined]
    )


def test_the_dimension_is_as_stated() -> None:
    assert network(8).dimension == 8**2 + 28 * 8 + 10
    with pytest.raises(ValueError, match=r"width = 0: must be in \[1, inf\)"):
        network(0)


def test_costs_of_sgd_and_adahessian_are_exact() -> None:
    d = network(8).dimension
    sgd, adahessian = cost("sgd/torch", 8, "cpu", 1), cost("adahessian/torch", 8, "cpu", 1)
    assert (sgd.oracle_calls, sgd.state_bytes) == (1, 0)
    assert (adahessian.oracle_calls, adahessian.state_bytes) == (2, 2 * 4 * d)
    assert 1 < sgd.gradients < 1.2 < adahessian.gradients
    assert sgd.sgd_steps > 0


def test_a_step_of_a_query_for_each_parameter_of_a_wide_network_is_refused() -> None:
    with pytest.raises(Unaffordable, match=r"zo-cge asks .* queries a step of"):
        Stepper("zo-cge/torch", 128)


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(DeviceError, match="cuda:99"):
        Stepper("sgd/torch", 8, "cuda:99")
