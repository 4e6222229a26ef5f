"""Flops and bytes of a jax program, from its jaxpr: loops times their trip count, of a ``cond`` the branch taken.

Where the cost of a program is not a constant of it, a second program is made that carries the cost beside the values:
each branch and each turn of a loop adds its own. It is traced once and never timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from curvebench.oracle import work as W
from curvebench.oracle.work import Work, names, product


def measure(function: Callable[..., Any], *args: Any) -> Callable[..., Work]:
    """A function of the same arguments that returns the :class:`Work` of one call of ``function``.

    Args:
        function: traceable.
        args: an example of its arguments; only shapes matter.
    """
    closed = jax.make_jaxpr(function)(*args)
    fixed = _static(closed.jaxpr)
    if fixed is not None:
        return lambda *_: fixed
    unknown = Work()
    _names(closed.jaxpr, unknown)
    counted = jax.jit(lambda *flat: _run(closed.jaxpr, closed.consts, flat)[1])

    def run(*actual: Any) -> Work:
        flops, size = (float(v) for v in np.asarray(counted(*jax.tree.leaves(actual))))
        return Work(flops, size, unknown.unknown.copy())

    return run


# -- the cost of one equation ------------------------------------------------------------------------------------------


def _size(avals: Sequence[Any]) -> float:
    return float(sum(product(a.shape) for a in avals if hasattr(a, "shape")))


def _bytes(avals: Sequence[Any]) -> float:
    return float(
        sum(product(a.shape) * a.dtype.itemsize for a in avals if hasattr(a, "shape") and hasattr(a.dtype, "itemsize"))
    )


def equation(eqn: Any) -> Work:
    """The work of one equation that contains no other jaxpr."""
    name = eqn.primitive.name
    ins, outs = [v.aval for v in eqn.invars], [v.aval for v in eqn.outvars]
    if name in _FREE:
        return Work()
    work = Work(bytes=_bytes(ins) + _bytes(outs))
    if name in _FORMULAS:
        work.flops = _FORMULAS[name](ins, outs, eqn.params)
    elif name in _MOVES:
        pass
    elif name in _ELEMENTWISE:
        work.flops = _ELEMENTWISE[name] * _size(outs)
    elif name in _REDUCTIONS:
        work.flops = _size(ins[:1])
    else:
        work.flops = _size(outs)
        work.unknown[name] += 1
    return work


def _dot_general(ins: Any, outs: Any, params: Any) -> float:
    (contracted, _), _ = params["dimension_numbers"]
    return 2.0 * product(outs[0].shape) * product(ins[0].shape[d] for d in contracted)


def _convolution(ins: Any, outs: Any, params: Any) -> float:
    x, kernel, y, numbers = ins[0].shape, ins[1].shape, outs[0].shape, params["dimension_numbers"]
    pairs = 1
    for d, (a, k, b) in enumerate(zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)):
        pairs *= W.taps(y[b], x[a], kernel[k], params["window_strides"][d], params["rhs_dilation"][d],
                        params["padding"][d][0], params["lhs_dilation"][d])  # fmt: skip
    maps = y[numbers.out_spec[0]] * y[numbers.out_spec[1]]
    return W.convolution(maps, kernel[numbers.rhs_spec[1]], pairs)


def _window(ins: Any, outs: Any, params: Any) -> float:
    return float(product(outs[0].shape) * product(params["window_dimensions"]))


def _matrix(formula: Callable[[float, float], float]) -> Callable[[Any, Any, Any], float]:
    """A factorisation of the first operand ``[..., m, n]``."""
    return lambda ins, outs, params: product(ins[0].shape[:-2]) * formula(*ins[0].shape[-2:])


def _triangular(ins: Any, outs: Any, params: Any) -> float:
    n = ins[0].shape[-1]
    return W.triangular_solve(n, product(ins[1].shape) / n)


def _fft(ins: Any, outs: Any, params: Any) -> float:
    real = getattr(params["fft_type"], "name", "") in ("RFFT", "IRFFT")  # of real numbers: half the work
    return W.fft(max(_size(ins), _size(outs)), product(params["fft_lengths"])) / (2 if real else 1)


_FORMULAS: dict[str, Callable[[Any, Any, Any], float]] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "cholesky": _matrix(lambda m, n: W.cholesky(n)),
    "lu": _matrix(W.lu),
    "qr": _matrix(lambda m, n: 2 * W.qr(m, n)),
    "geqrf": _matrix(W.qr),
    "householder_product": _matrix(W.qr),
    "eigh": _matrix(lambda m, n: W.eigh(n)),
    "eig": _matrix(lambda m, n: W.eig(n)),
    "svd": lambda ins, outs, params: (
        product(ins[0].shape[:-2]) * W.svd(ins[0].shape[-2], ins[0].shape[-1], bool(params.get("compute_uv", True)))
    ),
    "triangular_solve": _triangular,
    "fft": _fft,
    "sort": lambda ins, outs, params: W.sort(_size(ins[:1]), ins[0].shape[params["dimension"]]),
    "top_k": lambda ins, outs, params: W.sort(_size(ins[:1]), params["k"]),
    "reduce_window_sum": _window,
    "reduce_window_max": _window,
    "reduce_window_min": _window,
    "select_and_scatter_add": _window,
    "select_and_gather_add": _window,
    "scatter-add": lambda ins, outs, params: _size(ins[2:]),
    "scatter_add": lambda ins, outs, params: _size(ins[2:]),
    "scatter_mul": lambda ins, outs, params: _size(ins[2:]),
    "scatter_min": lambda ins, outs, params: _size(ins[2:]),
    "scatter_max": lambda ins, outs, params: _size(ins[2:]),
    # One flop per random number, as in torch: its own arithmetic is a detail of the generator.
    "random_bits": lambda ins, outs, params: _size(outs),
    "threefry2x32": lambda ins, outs, params: _size(outs),
    "integer_pow": lambda ins, outs, params: _size(outs),
}
_ELEMENTWISE: dict[str, float] = dict.fromkeys(
    names("""
    add add_any sub mul div rem max min pow neg sign abs floor ceil round exp exp2 log log1p expm1 tanh sin cos
    tan asin acos atan sinh cosh asinh acosh atanh sqrt rsqrt cbrt square erf erfc erf_inv lgamma digamma atan2
    nextafter is_finite eq ne lt le gt ge and or xor not clamp select_n population_count shift_left
    shift_right_logical shift_right_arithmetic real imag complex conj igamma regularized_incomplete_beta
    bessel_i0e bessel_i1e clz mulhi reduce_precision
"""),
    1.0,
) | {"logistic": 3.0}
_REDUCTIONS = names("""
    reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin cumsum cumprod
    cummax cummin cumlogsumexp reduce
""")
_FREE = names("""
    reshape squeeze broadcast_in_dim transpose slice stop_gradient copy_p random_wrap random_unwrap random_seed
    random_fold_in debug_callback sharding_constraint optimization_barrier expand_dims create_token after_all
    split random_split lu_pivots_to_permutation symbolic_zeros random_clone device_put pvary mesh_cast
    platform_index
""")
"""Views and bookkeeping: neither flops nor bytes, as in torch."""
_MOVES = names("""
    convert_element_type bitcast_convert_type concatenate pad gather dynamic_slice dynamic_update_slice scatter
    rev copy iota empty copy_to_host tile unstack stack full
""")


# -- programs ----------------------------------------------------------------------------------------------------------


def _inner(eqn: Any) -> list[Any]:
    """The jaxprs of an equation that is only a call."""
    found = []
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        if inner is not None:
            found.append(getattr(inner, "jaxpr", inner))
    if eqn.primitive.name in ("custom_linear_solve", "linear_solve"):
        found.append(eqn.params["jaxprs"].solve.jaxpr)
    return found


def _static(jaxpr: Any) -> Work | None:
    """The work of a jaxpr, or None if it depends on values."""
    total = Work()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "cond":
            branches = [_static(b.jaxpr) for b in eqn.params["branches"]]
            known = [b for b in branches if b is not None]
            if len(known) < len(branches) or len({(b.flops, b.bytes) for b in known}) > 1:
                return None
            part = known[0]
        elif name == "while":
            return None
        elif inner := _inner(eqn):
            parts = [_static(j) for j in inner]
            if any(p is None for p in parts):
                return None
            part = Work()
            for p in parts:
                part.add(p, float(eqn.params["length"]) if name == "scan" else 1.0)  # type: ignore[arg-type]
        else:
            part = equation(eqn)
        total.add(part)
    return total


def _names(jaxpr: Any, into: Work) -> None:
    """Enter the unknown operations of a jaxpr and all that it contains, whatever branch is taken."""
    for eqn in jaxpr.eqns:
        inner = _inner(eqn)
        if eqn.primitive.name == "cond":
            inner = [b.jaxpr for b in eqn.params["branches"]]
        elif eqn.primitive.name == "while":
            inner = [eqn.params["body_jaxpr"].jaxpr, eqn.params["cond_jaxpr"].jaxpr]
        if not inner:
            into.unknown.update(equation(eqn).unknown)
        for jaxpr_ in inner:
            _names(jaxpr_, into)


def _constant(work: Work) -> Array:
    return jnp.asarray([work.flops, work.bytes], jnp.float32)


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> tuple[list[Any], Array]:
    """Evaluate a jaxpr (under a trace) and return its values with ``[flops, bytes]`` float32, exact to 1e-7."""
    environment: dict[Any, Any] = {}

    def read(v: Any) -> Any:
        return v.val if hasattr(v, "val") else environment[v]

    def write(variables: Sequence[Any], values: Sequence[Any]) -> None:
        environment.update(zip(variables, values, strict=True))

    write(jaxpr.constvars, consts)
    write(jaxpr.invars, args)
    total = jnp.zeros(2, jnp.float32)
    fixed = Work()
    for eqn in jaxpr.eqns:
        values = [read(v) for v in eqn.invars]
        name = eqn.primitive.name
        if name == "cond":
            values, cost = _cond(eqn, values)
            total = total + cost
        elif name == "while":
            values, cost = _while(eqn, values)
            total = total + cost
        elif (inner := _inner(eqn)) and any(_static(j) is None for j in inner):
            values, cost = _scan(eqn, values) if name == "scan" else _run_closed(eqn, inner[0], values)
            total = total + cost
        else:
            for j in inner:
                part = _static(j)
                assert part is not None
                fixed.add(part, float(eqn.params["length"]) if name == "scan" else 1.0)
            if not inner:
                fixed.add(equation(eqn))
            bound = eqn.primitive.get_bind_params(eqn.params)  # a pair before jax 0.10, a dict since
            functions, params = bound if isinstance(bound, tuple) else ((), bound)
            out = eqn.primitive.bind(*functions, *values, **params)
            values = list(out) if eqn.primitive.multiple_results else [out]
        write(eqn.outvars, values)
    return [read(v) for v in jaxpr.outvars], total + _constant(fixed)


def _run_closed(eqn: Any, jaxpr: Any, values: Sequence[Any]) -> tuple[list[Any], Array]:
    closed = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params)
    return _run(jaxpr, getattr(closed, "consts", ()), values)


def _cond(eqn: Any, values: Sequence[Any]) -> tuple[list[Any], Array]:
    branches = [lambda *args, b=b: _run(b.jaxpr, b.consts, args) for b in eqn.params["branches"]]
    out, cost = lax.switch(values[0], branches, *values[1:])
    return list(out), cost


def _while(eqn: Any, values: Sequence[Any]) -> tuple[list[Any], Array]:
    params = eqn.params
    test_consts = values[: params["cond_nconsts"]]
    body_consts = values[params["cond_nconsts"] : params["cond_nconsts"] + params["body_nconsts"]]
    init = tuple(values[params["cond_nconsts"] + params["body_nconsts"] :])
    test, body = params["cond_jaxpr"], params["body_jaxpr"]

    def turn(carry: Any) -> Any:
        state, cost = carry
        _, asked = _run(test.jaxpr, test.consts, (*test_consts, *state))
        state, more = _run(body.jaxpr, body.consts, (*body_consts, *state))
        return tuple(state), cost + asked + more

    def go_on(carry: Any) -> Any:
        return _run(test.jaxpr, test.consts, (*test_consts, *carry[0]))[0][0]

    state, cost = lax.while_loop(go_on, turn, (init, jnp.zeros(2, jnp.float32)))
    _, last = _run(test.jaxpr, test.consts, (*test_consts, *state))
    return list(state), cost + last


def _scan(eqn: Any, values: Sequence[Any]) -> tuple[list[Any], Array]:
    params = eqn.params
    consts, carry_end = values[: params["num_consts"]], params["num_consts"] + params["num_carry"]
    body = params["jaxpr"]

    def turn(carry: Any, xs: Any) -> Any:
        state, cost = carry
        out, more = _run(body.jaxpr, body.consts, (*consts, *state, *xs))
        return (tuple(out[: params["num_carry"]]), cost + more), tuple(out[params["num_carry"] :])

    init = (tuple(values[params["num_consts"] : carry_end]), jnp.zeros(2, jnp.float32))
    (state, cost), ys = lax.scan(
        turn, init, tuple(values[carry_end:]), length=params["length"], reverse=params["reverse"]
    )
    return [*state, *ys], cost
