"""Deep hedging: a network trades the underlying to offset a call option, and the risk of what is left is minimised.

``Z = (S_N - K)_+ - p_0 - sum_k delta_k (S_{k+1} - S_k) + cost sum_k S_k |delta_k - delta_{k-1}|`` per path, where
``delta_k`` is the network's output from what is known at time k. ``quadratic`` risk ``mean Z^2 / 2``; ``entropic`` risk
``log mean exp(Z)`` (risk aversion 1), a function of the whole batch. The metric is the standard deviation of Z on fresh
paths: methods of second order can fit the training paths too well.
Networks: ``feed-forward`` (one MLP for all times, of time left, log-moneyness and volatility) and ``lstm`` (those and
the previous hedge; one linear layer per gate, so that layer-wise curvature sees each).
Shapes: inputs ``[batch, N + 1, 4]`` (price, time left, log-moneyness, volatility), outputs ``[batch]``.
Reference: Buehler et al., "Deep Hedging", 2019; "A New Way: Kronecker-Factored Approximate Curvature Deep Hedging".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.markets import Market, features
from curvebench.tasks.mlp import initial, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator, kaiming_normal

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

GATES = ("input", "forget", "cell", "output")
FEATURES = 3
"""Time left, log-moneyness, volatility."""


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``model, steps, xi, risk, cost, network, width, paths, held_out``, ``premium`` (0: Black-Scholes').

    Raises:
        ValueError: an unknown risk or network, or a negative cost.
    """
    options: Mapping[str, Any] = scale.options
    risk, network, cost = str(options["risk"]), str(options["network"]), float(options["cost"])
    if risk not in ("quadratic", "entropic") or network not in ("feed-forward", "lstm") or cost < 0:
        raise ValueError(
            f"hedging: risk = {risk!r}, network = {network!r}, cost = {cost}: must be 'quadratic' or 'entropic', "
            "'feed-forward' or 'lstm', and >= 0"
        )
    market = Market(str(options["model"]), int(options["steps"]), xi=float(options["xi"]))
    premium = float(options["premium"]) or market.black_scholes()
    width, recurrent = int(options["width"]), network == "lstm"
    rng = generator(card.name, seed_block, "init")
    parameters = _lstm(rng, width) if recurrent else initial(rng, [FEATURES, width, width, 1])

    def split(part: str, paths: int) -> Split:
        drawn = generator("hedging", "instance", f"{part}/{market.model}/{market.steps}/{market.xi}/{paths}")
        return Split(observed(market, *market.simulate(drawn, paths)), np.zeros(paths))

    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=parameters,
        train=split("train", int(options["paths"])),
        validation=split("validation", int(options["held_out"])),
        test=split("test", int(options["held_out"])),
        criterion="squared" if risk == "quadratic" else "entropic",
        metric="deviation",
        torch_module=lambda: torch_hedger(width, recurrent, market.spot, premium, cost),
        jax_apply=jax_hedger(recurrent, market.spot, premium, cost),
        batch=batch_size(scale),
    )


def observed(market: Market, prices: npt.NDArray[Any], variances: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Inputs ``[paths, N + 1, 4]``."""
    left = np.broadcast_to(1 - np.arange(market.steps + 1) / market.steps, prices.shape)
    return np.concatenate([prices[:, :, None], left[:, :, None], features(prices, variances, market.spot)], axis=2)


def shortfall(prices: Any, deltas: Any, strike: float, premium: float, cost: float) -> Any:
    """``Z`` ``[batch]`` of prices ``[batch, N + 1]`` and hedges ``[batch, N]``, in either framework."""
    gap = prices[:, -1] - strike
    gains = (deltas * (prices[:, 1:] - prices[:, :-1])).sum(1)
    left = gap * (gap > 0) - premium - gains
    if cost:
        first, later = abs(deltas[:, 0]) * prices[:, 0], abs(deltas[:, 1:] - deltas[:, :-1]) * prices[:, 1:-1]
        left = left + cost * (first + later.sum(1))
    return left


def _lstm(rng: np.random.Generator, width: int) -> dict[str, npt.NDArray[np.float64]]:
    found = {}
    for gate in GATES:
        found[f"{gate}.weight"] = kaiming_normal(rng, (width, FEATURES + 1 + width), gain=1.0)
        found[f"{gate}.bias"] = np.ones(width) if gate == "forget" else np.zeros(width)
    return found | {"head.weight": kaiming_normal(rng, (1, width), gain=1.0), "head.bias": np.zeros(1)}


def torch_hedger(width: int, recurrent: bool, strike: float, premium: float, cost: float) -> nn.Module:
    """The torch twin."""
    import torch
    from torch import nn

    class FeedForward(nn.Sequential):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            deltas = inputs[:, :-1, 1:]
            for layer in self:
                deltas = layer(deltas)
            deltas = deltas[:, :, 0]
            out: torch.Tensor = shortfall(inputs[:, :, 0], deltas, strike, premium, cost)
            return out

    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for gate in GATES:
                self.add_module(gate, nn.Linear(FEATURES + 1 + width, width))
            self.head = nn.Linear(width, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            hidden = cell = inputs.new_zeros(len(inputs), width)
            delta, deltas = inputs.new_zeros(len(inputs), 1), []
            for k in range(inputs.shape[1] - 1):
                seen = torch.cat([inputs[:, k, 1:], delta, hidden], 1)
                let_in, keep, new, let_out = (getattr(self, gate)(seen) for gate in GATES)
                cell = torch.sigmoid(keep) * cell + torch.sigmoid(let_in) * torch.tanh(new)
                hidden = torch.sigmoid(let_out) * torch.tanh(cell)
                delta = self.head(hidden)
                deltas.append(delta)
            out: torch.Tensor = shortfall(inputs[:, :, 0], torch.cat(deltas, 1), strike, premium, cost)
            return out

    return Lstm() if recurrent else FeedForward(*torch_mlp([FEATURES, width, width, 1], "tanh"))


def jax_hedger(recurrent: bool, strike: float, premium: float, cost: float) -> Any:
    """The jax twin; the recurrence is unrolled only where a tap watches each use of a layer."""

    def build(train: bool) -> Apply:
        import jax.numpy as jnp
        from jax import lax
        from jax.nn import sigmoid

        from curvebench.tasks.layers_jax import linear

        def feed_forward(params: dict[str, Any], inputs: Any, tap: Any) -> Any:
            hidden = jnp.tanh(linear(params, "0", inputs[:, :-1, 1:], tap))
            return linear(params, "4", jnp.tanh(linear(params, "2", hidden, tap)), tap)[:, :, 0]

        def lstm(params: dict[str, Any], inputs: Any, tap: Any) -> Any:
            width = params["head.weight"].shape[1]

            def trade(carry: tuple[Any, Any, Any], known: Any) -> tuple[tuple[Any, Any, Any], Any]:
                hidden, cell, delta = carry
                seen = jnp.concatenate([known, delta, hidden], 1)
                let_in, keep, new, let_out = (linear(params, gate, seen, tap) for gate in GATES)
                cell = sigmoid(keep) * cell + sigmoid(let_in) * jnp.tanh(new)
                hidden = sigmoid(let_out) * jnp.tanh(cell)
                delta = linear(params, "head", hidden, tap)
                return (hidden, cell, delta), delta

            known = jnp.swapaxes(inputs[:, :-1, 1:], 0, 1)
            zeros = jnp.zeros((len(inputs), width), inputs.dtype)
            carry = (zeros, zeros, jnp.zeros((len(inputs), 1), inputs.dtype))
            if tap is None:
                deltas = lax.scan(trade, carry, known)[1]
                return jnp.swapaxes(deltas[:, :, 0], 0, 1)
            found = []
            for k in range(len(known)):
                carry, delta = trade(carry, known[k])
                found.append(delta)
            return jnp.concatenate(found, 1)

        def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
            deltas = lstm(params, inputs, tap) if recurrent else feed_forward(params, inputs, tap)
            return shortfall(inputs[:, :, 0], deltas, strike, premium, cost), {}

        return apply

    return build
