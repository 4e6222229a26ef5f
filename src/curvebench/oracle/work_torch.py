"""Flops and bytes of a torch program, by watching every ATen operation that it runs.

Shapes are those of the operation's own schema: ``self [m, k]``, ``mat2 [k, n]``, leading dimensions are batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from curvebench.oracle import work as W
from curvebench.oracle.work import Work, names, product

Formula = Callable[[tuple[Any, ...], Mapping[str, Any], list[Tensor]], float]


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its mode untyped
    """Within this context every ATen operation is entered into ``work``. Never on the clock: it costs 10 us a call."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._enter(func, args, kwargs, out)
        return out

    def _enter(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        name = func._schema.name.rpartition("::")[2]
        if func.namespace not in ("aten", "prims") or name in _FREE or getattr(func, "is_view", False):
            return
        outputs = tensors(out)
        inputs = [*tensors(args), *tensors(kwargs)]
        flops = self._flops(func, name, args, kwargs, inputs, outputs)
        if flops is None:
            self.work.unknown[name] += 1
            flops = sum(t.numel() for t in outputs)
        self.work.flops += flops
        written = outputs or inputs[:1]  # an operation that returns nothing writes into its first argument
        self.work.bytes += sum(t.numel() * t.element_size() for t in (*inputs, *written))

    @staticmethod
    def _flops(
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        inputs: list[Tensor],
        outputs: list[Tensor],
    ) -> float | None:
        if name in FORMULAS:
            return FORMULAS[name](args, kwargs, outputs)
        short = name.removeprefix("_foreach_").rstrip("_") if name.startswith("_foreach_") else name.rstrip("_")
        if name.startswith("_fused_"):
            return W.WEIGHTS[short] * sum(t.numel() for t in args[0]) if short in W.WEIGHTS else None
        weight = W.WEIGHTS.get(short, W.WEIGHTS.get(short.lstrip("_"), 1.0))
        if name.startswith("_foreach_"):
            return 0.0 if short in _MOVES else weight * sum(t.numel() for t in args[0])
        if short in _MOVES:
            return 0.0
        if short in _REDUCTIONS or short in _BY_INPUT:
            return weight * (inputs[0].numel() if inputs else 0)
        if short in _ELEMENTWISE or short in W.WEIGHTS or torch.Tag.pointwise in func.tags:
            return weight * sum(t.numel() for t in outputs[:1])
        return None


def tensors(tree: Any) -> list[Tensor]:
    """All tensors of nested lists and dicts, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, list | tuple):
        return [t for node in tree for t in tensors(node)]
    if isinstance(tree, Mapping):
        return [t for node in tree.values() for t in tensors(node)]
    return []


def _matmul(a: Tensor, b: Tensor) -> float:
    """``a [..., m, k] @ b [..., k, n]``; a vector counts as one column (or row)."""
    m = a.shape[-2] if a.dim() > 1 else 1
    n = b.shape[-1] if b.dim() > 1 else 1
    return W.gemm(m, a.shape[-1], n, product(a.shape[:-2]))


def _batched(a: Tensor) -> tuple[float, float, float]:
    """``(batch, m, n)`` of ``[..., m, n]``."""
    return product(a.shape[:-2]), a.shape[-2], a.shape[-1]


def _convolution(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
    x, w, bias, stride, padding, dilation, transposed = args[:7]
    return _convolved(x, w, out[0], stride, padding, dilation, transposed) + (0 if bias is None else out[0].numel())


def _mkldnn_convolution(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
    x, w, bias, padding, stride, dilation = args[:6]
    return _convolved(x, w, out[0], stride, padding, dilation, False) + (0 if bias is None else out[0].numel())


def _convolved(
    x: Tensor, w: Tensor, y: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], flip: bool
) -> float:
    """One product of the three of ``y = x * w``; a transposed convolution is the one from y to x."""
    source, result = (y, x) if flip else (x, y)
    pairs = 1
    for d in range(w.dim() - 2):
        step, before, apart = (n[d] if len(n) > 1 else n[0] for n in (stride, padding, dilation))
        pairs *= W.taps(result.shape[2 + d], source.shape[2 + d], w.shape[2 + d], step, apart, before)
    return W.convolution(product(result.shape[:2]), w.shape[1], pairs)


def _convolution_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
    g, x, w, (stride, padding, dilation, transposed), mask = *args[:3], args[4:8], args[10]
    one = _convolved(x, w, g, stride, padding, dilation, transposed)
    return float((int(mask[0]) + int(mask[1])) * one + int(mask[2]) * g.numel())


def _attention(factor: float) -> Formula:
    """``softmax(q k') v``: two products forward, five backward (one recomputed)."""

    def formula(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
        offset = 1 if factor > 2 else 0  # the backward's first argument is the gradient of the output
        q, k = args[offset], args[offset + 1]
        pairs = product(q.shape[:-1]) * k.shape[-2]
        return float(factor * 2.0 * pairs * q.shape[-1] + 5.0 * pairs)

    return formula


def _rnn_layer(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
    x, w = args[0], args[1]  # [steps, batch, inputs], [4 hidden, inputs]
    steps, batch, inputs = x.shape
    return W.lstm(steps, batch, inputs, w.shape[0] / 4)


def _matrix(formula: Callable[[float, float], float]) -> Formula:
    """A factorisation of the first argument ``[..., m, n]``."""

    def of(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
        batch, m, n = _batched(args[0])
        return float(batch * formula(m, n))

    return of


def _columns(b: Tensor, n: int) -> float:
    return b.shape[-1] if b.dim() > 1 and b.shape[-2] == n else 1


def _solve(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
    batch, n, _ = _batched(args[0])
    return batch * (W.lu(n, n) + 2 * W.triangular_solve(n, _columns(args[1], int(n))))


def _two_triangles(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
    batch, n, columns = _batched(args[0])  # B, then the factor
    return batch * 2 * W.triangular_solve(n, columns)


def _triangle(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: list[Tensor]) -> float:
    batch, n, _ = _batched(args[0])
    return batch * W.triangular_solve(n, args[1].shape[-1])


def _norm(per_element: float, which: int = 0) -> Formula:
    return lambda args, kwargs, out: per_element * args[which].numel()


FORMULAS: dict[str, Formula] = {
    "mm": lambda a, k, o: _matmul(a[0], a[1]),
    "bmm": lambda a, k, o: _matmul(a[0], a[1]),
    "mv": lambda a, k, o: _matmul(a[0], a[1]),
    "dot": lambda a, k, o: 2.0 * a[0].numel(),
    "vdot": lambda a, k, o: 2.0 * a[0].numel(),
    "ger": lambda a, k, o: float(o[0].numel()),
    "addr": lambda a, k, o: 2.0 * o[0].numel(),
    "addr_": lambda a, k, o: 2.0 * o[0].numel(),
    "addmm": lambda a, k, o: _matmul(a[1], a[2]) + o[0].numel(),
    "addmm_": lambda a, k, o: _matmul(a[1], a[2]) + o[0].numel(),
    "addmv": lambda a, k, o: _matmul(a[1], a[2]) + o[0].numel(),
    "addmv_": lambda a, k, o: _matmul(a[1], a[2]) + o[0].numel(),
    "addbmm": lambda a, k, o: _matmul(a[1], a[2]) + o[0].numel(),
    "baddbmm": lambda a, k, o: _matmul(a[1], a[2]) + o[0].numel(),
    "baddbmm_": lambda a, k, o: _matmul(a[1], a[2]) + o[0].numel(),
    "convolution": _convolution,
    "_convolution": _convolution,
    "mkldnn_convolution": _mkldnn_convolution,
    "convolution_backward": _convolution_backward,
    "mkldnn_rnn_layer": _rnn_layer,
    "mkldnn_rnn_layer_backward": lambda a, k, o: 2.0 * _rnn_layer(a, k, o),
    "_scaled_dot_product_flash_attention_for_cpu": _attention(2),
    "_scaled_dot_product_flash_attention": _attention(2),
    "_scaled_dot_product_efficient_attention": _attention(2),
    "_scaled_dot_product_cudnn_attention": _attention(2),
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention(5),
    "_scaled_dot_product_flash_attention_backward": _attention(5),
    "_scaled_dot_product_efficient_attention_backward": _attention(5),
    "_scaled_dot_product_cudnn_attention_backward": _attention(5),
    "native_batch_norm": _norm(W.LAYER_NORM),
    "_native_batch_norm_legit": _norm(W.LAYER_NORM),
    "native_batch_norm_backward": _norm(W.LAYER_NORM_BACKWARD),
    "native_layer_norm": _norm(W.LAYER_NORM),
    "native_layer_norm_backward": _norm(W.LAYER_NORM_BACKWARD),
    "native_group_norm": _norm(W.LAYER_NORM),
    "native_group_norm_backward": _norm(W.LAYER_NORM_BACKWARD),
    "max_pool2d_with_indices": lambda a, k, o: float(o[0].numel() * product(_pair(a[1]))),
    "avg_pool2d": lambda a, k, o: float(o[0].numel() * product(_pair(a[1]))),
    "avg_pool2d_backward": lambda a, k, o: float(a[0].numel() * product(_pair(a[2]))),
    "embedding_dense_backward": lambda a, k, o: float(a[0].numel()),
    "cholesky": _matrix(lambda m, n: W.cholesky(n)),
    "linalg_cholesky_ex": _matrix(lambda m, n: W.cholesky(n)),
    "cholesky_solve": _two_triangles,
    "_cholesky_solve_helper": _two_triangles,
    "cholesky_inverse": _matrix(lambda m, n: W.inverse(n) - W.cholesky(n) - n**3),
    "linalg_lu_factor_ex": _matrix(W.lu),
    "linalg_lu": _matrix(W.lu),
    "linalg_inv_ex": _matrix(lambda m, n: W.inverse(n)),
    "_linalg_det": _matrix(W.lu),
    "_linalg_slogdet": _matrix(W.lu),
    "_linalg_solve_ex": _solve,
    "linalg_lstsq": _matrix(W.qr),
    "linalg_lu_solve": lambda a, k, o: 2.0 * a[2].numel() * a[0].shape[-1],
    "lu_solve": _two_triangles,
    "linalg_solve_triangular": _triangle,
    "triangular_solve": _two_triangles,
    "linalg_qr": _matrix(lambda m, n: 2 * W.qr(m, n)),
    "geqrf": _matrix(W.qr),
    "linalg_householder_product": _matrix(W.qr),
    "_linalg_eigh": _matrix(lambda m, n: W.eigh(n)),
    "linalg_eig": _matrix(lambda m, n: W.eig(n)),
    "_linalg_svd": _matrix(W.svd),
    "_fft_r2c": lambda a, k, o: W.fft(a[0].numel(), product(a[0].shape[d] for d in a[1])) / 2,
    "_fft_c2r": lambda a, k, o: W.fft(o[0].numel(), product(o[0].shape[d] for d in a[1])) / 2,
    "_fft_c2c": lambda a, k, o: W.fft(a[0].numel(), product(a[0].shape[d] for d in a[1])),
    "sort": lambda a, k, o: W.sort(a[0].numel(), a[0].shape[-1] if a[0].dim() else 1),
    "topk": lambda a, k, o: W.sort(a[0].numel(), a[1]),
    "nll_loss_forward": lambda a, k, o: float(a[0].shape[0]),
    "nll_loss_backward": lambda a, k, o: float(a[1].shape[0]),
    "nll_loss2d_forward": lambda a, k, o: float(a[0].numel() / a[0].shape[1]),
    "nll_loss2d_backward": lambda a, k, o: float(a[1].numel() / a[1].shape[1]),
}


def _pair(kernel: Any) -> tuple[int, int]:
    sizes = list(kernel) if isinstance(kernel, list | tuple) else [kernel]
    return (int(sizes[0]), int(sizes[-1]))


_FREE = names("""
    detach empty empty_like empty_strided new_empty new_empty_strided lift_fresh alias _unsafe_view
    _local_scalar_dense _linalg_check_errors set_ resize_ _reshape_alias view record_stream is_same_size
    result_type _has_compatible_shallow_copy_type sym_size is_pinned _efficientzerotensor
""")
"""Neither flops nor bytes: views and bookkeeping."""

_MOVES = names("""
    clone copy cat stack zeros ones zeros_like ones_like full full_like fill zero eye arange linspace
    scalar_tensor gather index index_select index_put _index_put_impl scatter embedding roll flip constant_pad_nd
    im2col select_backward slice_backward unfold_backward reflection_pad2d _to_copy to_dense repeat tril triu
    max_pool2d_with_indices_backward new_zeros new_full new_ones masked_fill masked_select nonzero
    as_strided_scatter select_scatter slice_scatter diagonal_scatter diag_embed tril_indices triu_indices where
    upsample_nearest2d _pin_memory resolve_conj view_as_real view_as_complex reflection_pad2d_backward
    replication_pad2d take put index_fill squeeze_copy permute_copy expand_copy one_hot bincount masked_scatter
    new_empty unsqueeze_copy t_copy transpose_copy view_copy
""")
"""Bytes and no flops."""

_REDUCTIONS = names("""
    sum mean amax amin max min argmax argmin prod all any norm linalg_vector_norm var var_mean std logsumexp
    cumsum cumprod trace nansum count_nonzero median aminmax equal nanmedian cummax cummin logcumsumexp std_mean
    _weight_norm_interface unique_dim _unique2 searchsorted _is_all_true _is_any_true histc isin mse_loss
    adaptive_avg_pool2d _adaptive_avg_pool2d binary_cross_entropy_with_logits smooth_l1_loss huber_loss
""")
"""One flop (times the weight) per element of the input."""

_BY_INPUT = names("""
    col2im index_add scatter_add scatter_reduce _softmax_backward_data _log_softmax_backward_data
    _adaptive_avg_pool2d_backward
""")

_ELEMENTWISE = names("""
    _softmax _log_softmax randn rand randint randperm normal uniform bernoulli random exponential
    threshold_backward isfinite isnan isinf clamp nan_to_num native_dropout rrelu_with_noise bernoulli_
    multinomial poisson geometric log_normal cauchy cross polar complex real imag frac bitwise_and bucketize
    randn_like rand_like randint_like linalg_cross _conj _conj_physical conj_physical rsub pow square
""")
