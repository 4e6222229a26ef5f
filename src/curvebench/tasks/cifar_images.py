"""What the CIFAR tasks share: which images train, validate and test, how they are normalised and augmented.

Options of every CIFAR task: ``train``, ``validation``, ``test`` (numbers of samples) and ``augment`` (bool: crop with 4
pixels of padding, and flip). ``label_smoothing`` (bool, off by default) smooths the labels by 0.1 in the criterion, so
in every loss that is reported; the metric, accuracy, is untouched. The validation set is the tail of the official
training set (never trained on); subsets are the first images of each part in official order, the same for every seed
block.
Shapes: images ``[batch, 3, 32, 32]``, normalised per channel; logits ``[batch, classes]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.cards import TaskCard, TaskScale
from curvebench.data.cifar import Cifar, load_cifar10, load_cifar100
from curvebench.tasks.augmentation import CropFlip
from curvebench.tasks.problem import Problem, Split, batch_size
from curvebench.types import Parameters

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

CLASSES = {"cifar10": 10, "cifar100": 100}


def load(dataset: str) -> Cifar:
    """The data set by its card's name."""
    return {"cifar10": load_cifar10, "cifar100": load_cifar100}[dataset]()


def assemble(
    card: TaskCard,
    scale: TaskScale,
    seed_block: int,
    parameters: Parameters,
    torch_module: Callable[[], nn.Module],
    jax_apply: Callable[[bool], Apply],
    *,
    cifar: Cifar | None = None,
    batch_norm: bool = True,
) -> Problem:
    """The problem from a model and the images.

    Raises:
        ValueError: more samples are asked for than a part has.
        DataError: a data file is missing or is not the official one.
    """
    options: Mapping[str, Any] = scale.options
    assert card.dataset is not None
    dataset = cards.dataset(card.dataset)
    images = cifar if cifar is not None else load(card.dataset)
    n_train, n_validation, n_test = (int(options[key]) for key in ("train", "validation", "test"))
    held_out = len(images.train_labels) - dataset.splits["validation"]
    most = {"train": held_out, "validation": dataset.splits["validation"], "test": len(images.test_labels)}
    if n_train > most["train"] or n_validation > most["validation"] or n_test > most["test"]:
        raise ValueError(
            f"{card.name}: train = {n_train}, validation = {n_validation}, test = {n_test}: must be at most "
            f"{', '.join(map(str, most.values()))}"
        )
    given = dataset.normalisation
    normalisation = moments(images.train_images) if given is None else (tuple(given.mean), tuple(given.std))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=parameters,
        buffers=running_statistics(parameters) if batch_norm else {},
        train=Split(images.train_images[:n_train], images.train_labels[:n_train]),
        validation=Split(images.train_images[held_out:][:n_validation], images.train_labels[held_out:][:n_validation]),
        test=Split(images.test_images[:n_test], images.test_labels[:n_test]),
        train_probe=n_validation,
        criterion="smoothed-cross-entropy" if options.get("label_smoothing", False) else "cross-entropy",
        metric="accuracy",
        torch_module=torch_module,
        jax_apply=jax_apply,
        batch=batch_size(scale),
        normalisation=normalisation,
        augment=CropFlip(4) if options.get("augment", False) else None,
    )


def running_statistics(parameters: Parameters) -> dict[str, npt.NDArray[np.float64]]:
    """Zero means and unit variances for every norm layer."""
    buffers = {}
    for name, value in parameters.items():
        if value.ndim == 1 and name.endswith(".weight"):
            prefix = name.removesuffix("weight")
            buffers[f"{prefix}running_mean"] = np.zeros(len(value))
            buffers[f"{prefix}running_var"] = np.ones(len(value))
    return buffers


def moments(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in units of 1/255, exact, from how often each byte occurs."""
    value = np.arange(256) / 255
    counts = [np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(images.shape[1])]
    means = [float(count @ value) / int(count.sum()) for count in counts]
    spread = [float(count @ (value - mean) ** 2) / int(count.sum()) for count, mean in zip(counts, means, strict=True)]
    return tuple(means), tuple(float(np.sqrt(variance)) for variance in spread)
