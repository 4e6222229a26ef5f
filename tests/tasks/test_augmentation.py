"""Crop-and-flip against a loop over images, the same bits in torch and jax, a function of task, seed block and step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch

from curvebench.tasks.augmentation import CropFlip
from curvebench.tasks.augmentation_jax import crop_flip as crop_flip_jax
from curvebench.tasks.augmentation_torch import crop_flip as crop_flip_torch
from curvebench.tasks.problem import Problem, Split
from curvebench.tasks.runtime_jax import JaxTask
from curvebench.tasks.runtime_torch import TorchTask


def by_hand(images: np.ndarray, draws: np.ndarray, padding: int) -> np.ndarray:
    out = np.empty_like(images)
    for n, (row, column, mirrored) in enumerate(draws):
        padded = np.pad(images[n], ((0, 0), (padding, padding), (padding, padding)))
        window = padded[:, row : row + images.shape[2], column : column + images.shape[3]]
        out[n] = window[:, :, ::-1] if mirrored else window
    return out


@pytest.mark.parametrize(("padding", "shape"), [(4, (32, 3, 32, 32)), (0, (5, 1, 6, 4)), (2, (7, 2, 3, 5))])
def test_both_frameworks_equal_a_loop(padding: int, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    draws = CropFlip(padding).draws(1, 3, len(images))
    expected = by_hand(images, draws, padding)
    assert np.array_equal(crop_flip_torch(torch.from_numpy(images), torch.from_numpy(draws), padding).numpy(), expected)
    assert np.array_equal(np.asarray(crop_flip_jax(jax.numpy.array(images), draws, padding)), expected)


def test_draws_are_uniform_and_follow_from_seed_and_step_alone() -> None:
    first = CropFlip(4).draws(5, 0, 9000)
    assert np.array_equal(first, CropFlip(4).draws(5, 0, 9000))
    assert not np.array_equal(first, CropFlip(4).draws(5, 1, 9000))
    assert not np.array_equal(first, CropFlip(4).draws(6, 0, 9000))
    for column, size in ((0, 9), (1, 9), (2, 2)):
        counts = np.bincount(first[:, column], minlength=size)
        assert len(counts) == size
        assert np.abs(counts - 9000 / size).max() < 5 * np.sqrt(9000 / size), "5 standard deviations"
    with pytest.raises(ValueError, match="padding = -1: must be at least 0"):
        CropFlip(-1)


def pictures(**more: Any) -> Problem:
    rng = np.random.default_rng(1)
    split = Split(rng.integers(0, 256, (12, 2, 4, 4), dtype=np.uint8), rng.integers(0, 3, 12))
    small = tiny.conv()
    return replace(small, train=split, validation=split, test=None, normalisation=((0.4, 0.5), (0.2, 0.3)), **more)


def test_batches_are_the_same_bits_in_both_frameworks_and_evaluation_is_not_augmented() -> None:
    plain, augmented = pictures(batch=4), pictures(batch=4, augment=CropFlip(2))
    left = TorchTask(augmented, torch.device("cpu"), torch.float32)
    right = JaxTask(augmented, jax.devices("cpu")[0], np.float32)
    bare = TorchTask(plain, torch.device("cpu"), torch.float32)
    for step in (0, 5, 2):
        x, y = left.batch(step)
        u, v = right.batch(right.data, right.rows(step))
        assert x.dtype == torch.float32
        np.testing.assert_allclose(x.numpy(), np.asarray(u), rtol=1e-6, atol=1e-6)
        assert np.array_equal(y.numpy(), np.asarray(v))
        assert np.array_equal(y.numpy(), bare.batch(step)[1].numpy()), "the order is the order without it"
        assert not np.array_equal(x.numpy(), bare.batch(step)[0].numpy())
    assert left.evaluate() == bare.evaluate()


def test_a_full_batch_is_not_augmented() -> None:
    with pytest.raises(ValueError, match="batch = 'full': must be a number where batches are augmented"):
        pictures(augment=CropFlip(2))
