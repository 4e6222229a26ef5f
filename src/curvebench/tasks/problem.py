"""A task without a framework: arrays, batches and the recipe of its twins, all in NumPy.

Shapes: ``n`` training samples; inputs ``[n, ...]``, targets ``[n]`` (or ``[n, ...]``); parameters are a flat dict by
torch's ``state_dict`` names in ``named_parameters`` order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskScale
from curvebench.spec import seed
from curvebench.tasks.augmentation import Augmentation
from curvebench.tasks.metrics import METRICS
from curvebench.tasks.scores import SCORES, Extra
from curvebench.types import Parameters

if TYPE_CHECKING:  # heavy frameworks are imported only by the twin that runs
    from torch import nn

    from curvebench.oracle.jax import Apply


LIKELIHOODS = {
    "squared": "gaussian",
    "squared-norm": "gaussian",
    "quartic-norm": "none",
    "logistic": "bernoulli",
    "logistic-ridge": "none",
    "bernoulli": "bernoulli",
    "cross-entropy": "categorical",
    "smoothed-cross-entropy": "categorical",  # the same Hessian in the outputs, so Gauss-Newton = Fisher
    "log-sum-exp": "none",
    "poisson": "none",
    "mean": "none",
    "entropic": "none",
}
"""Criterion -> the distribution of the targets given the outputs whose negative log-likelihood it is."""


class Split(NamedTuple):
    """Samples of one split: ``inputs [n, ...]`` (float64, uint8 images, int64 tokens) and ``targets [n, ...]``."""

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)


class Evaluation(NamedTuple):
    """One evaluation, off the clock: the metric, the training loss, the test metric (None without a test set)."""

    metric: float
    loss: float
    test: float | None


@dataclass(frozen=True)
class Problem:
    """Everything that both twins of a task share.

    Args:
        name: the task's name.
        seed_block: fixes ``parameters`` and the data order.
        parameters: initial values in float64.
        train: training samples.
        criterion: a key of :data:`LIKELIHOODS`; :mod:`curvebench.tasks.criteria_torch` defines them.
        metric: ``gap`` (training objective minus ``optimum``) or a key of :data:`curvebench.tasks.metrics.METRICS`
            (on ``validation``).
        torch_module: makes the ``nn.Module``; its ``named_parameters`` are ``parameters``, in order.
        jax_apply: ``apply(params, buffers, inputs, tap, train) -> (outputs, batch statistics)``.
        batch: samples per step, or None for full batches.
        validation: what targets and tuning look at.
        test: reported, never tuned on.
        train_probe: how many training samples the reported loss is averaged over (all, or the first so many).
        buffers: initial BatchNorm running statistics.
        momentum: BatchNorm's momentum.
        l2: coefficient of the quadratic regulariser in the objective.
        optimum: the smallest value of the objective, where it is known.
        normalisation: ``(mean, std)`` per channel for uint8 images; they are scaled to [0, 1] first.
        augment: changes training batches before normalisation (crop and flip, fresh masks, keys of dropout); evaluation
            sees the samples as they are.
        padded: inputs are token numbers ``[n, 2, length]`` (tokens, then segments) filled up with 0: a batch may be cut
            after its longest sample.
        extras: name -> what is reported at the end of a run beside the metric.
        chunk: samples per forward in evaluation, where the runtime's own choice would take too much memory.
        notes: what a reader of the record must know, e.g. that there were no pre-trained weights.
        suffix: goes behind the task's title in records, for what makes it another task: ``(random weights)``.

    Raises:
        ValueError: no such criterion or metric, a metric without what it looks at, or an augmented full batch.
    """

    name: str
    seed_block: int
    parameters: Parameters
    train: Split
    criterion: str
    metric: str
    torch_module: Callable[[], nn.Module]
    jax_apply: Callable[[bool], Apply]
    batch: int | None = None
    validation: Split | None = None
    test: Split | None = None
    train_probe: int | None = None
    buffers: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    momentum: float = 0.1
    l2: float = 0.0
    optimum: float | None = None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    augment: Augmentation | None = None
    padded: bool = False
    extras: Mapping[str, Extra] = field(default_factory=dict)
    chunk: int | None = None
    notes: tuple[str, ...] = ()
    suffix: str = ""

    def __post_init__(self) -> None:
        if self.criterion not in LIKELIHOODS:
            raise ValueError(f"{self.name}: criterion = {self.criterion!r}: must be one of {', '.join(LIKELIHOODS)}")
        if self.metric != "gap" and self.metric not in METRICS:
            raise ValueError(f"{self.name}: metric = {self.metric!r}: must be one of gap, {', '.join(METRICS)}")
        wanted = "optimum" if self.metric == "gap" else "validation"
        if getattr(self, wanted) is None:
            raise ValueError(f"{self.name}: metric = {self.metric!r} needs {wanted}, which is None")
        if self.augment is not None and self.batch is None:
            raise ValueError(f"{self.name}: batch = 'full': must be a number where batches are augmented")

    @property
    def likelihood(self) -> str:
        """The distribution whose negative log-likelihood the criterion is, ``none`` if it is no likelihood."""
        return LIKELIHOODS[self.criterion]

    @property
    def pooled(self) -> bool:
        """Whether the criterion is the logarithm of a mean over samples, instead of a mean."""
        return self.criterion == "entropic"

    @property
    def dimension(self) -> int:
        """Number of parameters."""
        return sum(p.size for p in self.parameters.values())

    def order(self) -> BatchOrder:
        """The data order of this (task, seed block)."""
        return BatchOrder(len(self.train), self.batch, seed("order", self.name, self.seed_block))

    def draws(self, step: int) -> npt.NDArray[np.int32]:
        """What the augmentation of a step draws, ``[batch, columns]``: the same for every method and framework."""
        assert self.augment is not None
        assert self.batch is not None
        return self.augment.draws(seed("augment", self.name, self.seed_block), step, self.batch)

    def scored(self, outputs: Callable[[Split], npt.NDArray[Any]]) -> dict[str, float]:
        """The extras' values, from a function that gives a split's outputs in evaluation mode; each split once."""
        seen: dict[int, npt.NDArray[Any]] = {}
        found = {}
        for name, extra in self.extras.items():
            split = self.test if extra.split is None else extra.split
            if split is not None:
                at = seen[id(split)] = seen[id(split)] if id(split) in seen else outputs(split)
                found[name] = SCORES[extra.score](at, split.targets)
        return found

    def loss_probe(self) -> Split:
        """The training samples over which the reported loss is averaged."""
        return Split(*(a[: self.train_probe] for a in self.train))


class BatchOrder:
    """Sampling without replacement: a fresh permutation per epoch, the incomplete last batch dropped.

    Args:
        n: number of samples.
        batch: samples per batch, or None for full batches.
        seed: a function of (task, seed block) alone, so that every method and framework sees the same batches.

    Raises:
        ValueError: the batch is larger than the training set.
    """

    def __init__(self, n: int, batch: int | None, seed: int) -> None:
        if batch is not None and not 1 <= batch <= n:
            raise ValueError(f"batch = {batch}: must lie in [1, {n}], the number of training samples")
        self.size = n if batch is None else batch
        self.full = batch is None or batch == n
        self._n = n
        self._seed = seed
        self._epoch = -1
        self._permutation: npt.NDArray[np.int64] = np.arange(0)

    def __getitem__(self, step: int) -> npt.NDArray[np.int64]:
        """Indices ``[batch]`` of the step's samples; any step can be asked at any time."""
        epoch, position = divmod(step, self._n // self.size)
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.Philox(seed("epoch", self._seed, epoch)))
            self._permutation = rng.permutation(self._n)
            self._epoch = epoch
        return self._permutation[position * self.size : (position + 1) * self.size]


def batch_size(scale: TaskScale) -> int | None:
    """Samples per step of a card's scale, None for full batches."""
    return None if scale.batch == "full" else int(scale.batch)


def generator(task: str, seed_block: int | str, purpose: str) -> np.random.Generator:
    """The NumPy generator of a task's own randomness, a pure function of its arguments."""
    return np.random.Generator(np.random.Philox(seed("task", task, seed_block, purpose)))


def kaiming_normal(rng: np.random.Generator, shape: tuple[int, ...], gain: float = 2.0) -> npt.NDArray[np.float64]:
    """Weights ``[out, in, ...]`` from N(0, gain / fan_in), He et al. 2015 (gain 2 behind ReLU, 1 elsewhere)."""
    fan_in = int(np.prod(shape[1:]))
    return rng.standard_normal(shape) * float(np.sqrt(gain / fan_in))
