"""What optimiser state is for, by the names it is kept under: the split of a record's state bytes.

The names are those of torch's optimisers, optax's states, pytorch_optimizer and curvebench's own methods.
"""

from __future__ import annotations

from collections.abc import Iterable

_WORDS = {
    "moments": """m v h exp_avg exp_avg_sq exp_avg_diff exp_inf momentum momentum_buffer velocity mu nu trace square_avg
        grad_avg acc_delta max_exp_avg_sq sum sum_of_squares exp_avg_sq_row exp_avg_sq_col variance hessian
        hessian_moment z x p0 s v_row v_col estim_lr grad_sum params0 mean""",
    "factors": "A G GG L R factors preconditioner statistics covariance C",
    "inverses": "QA QG dA dG iA iG JA JG S Q inverse inverses eigenvectors eigenvalues pre_conditioners",
    "window": "gradients window ring gram",
    "history": "old_dirs old_stps ro al d prev_flat_grad diff_params_memory diff_updates_memory directions products",
    "masks": "mask masks live",
}
KINDS = {name: kind for kind, names in _WORDS.items() for name in names.split()}
OTHER = "other"


def kind(path: Iterable[str]) -> str:
    """The kind of a tensor kept under ``path``, names from the outermost in; the innermost known name decides."""
    for name in reversed(list(path)):
        if name in KINDS:
            return KINDS[name]
    return OTHER
