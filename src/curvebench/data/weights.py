"""Pre-trained BERT weights: from a folder, or from the Hugging Face hub, by safetensors alone.

``$CURVEBENCH_WEIGHTS`` is a folder with one subfolder a model (``bert-tiny/model.safetensors``), or the word ``hub``;
without it ``<data root>/weights`` is looked at. A PyTorch ``.bin`` file is a pickle, which can run any code while it is
read: it is refused, never opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.data import roots
from curvebench.errors import DataError, MissingPackageError

VARIABLE = "CURVEBENCH_WEIGHTS"
HUB = {
    "bert-tiny": "google/bert_uncased_L-2_H-128_A-2",
    "bert-mini": "google/bert_uncased_L-4_H-256_A-4",
    "bert-base": "google-bert/bert-base-uncased",
}
"""Model -> repository on the hub."""
FILE = "model.safetensors"


class Found(NamedTuple):
    """Where the weights of a model are: a file, or None and the sentence why not."""

    path: Path | None
    why: str


def find(model: str) -> Found:
    """Look for the weights of ``bert-tiny``, ``bert-mini`` or ``bert-base``.

    Raises:
        DataError: ``$CURVEBENCH_WEIGHTS`` is neither a folder nor ``hub``, or the model is there as a pickle only.
    """
    given = os.environ.get(VARIABLE)
    if given == "hub":
        return _from_hub(model)
    if given:
        if not Path(given).expanduser().is_dir():
            raise DataError(f"{VARIABLE}={given} is neither a folder nor the word hub")
        places = [Path(given).expanduser()]
    else:
        places = [root / "weights" for root in roots.roots()]
    for place in places:
        folder = place / model
        if (folder / FILE).is_file():
            return Found(folder / FILE, "")
        if pickles := sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt")):
            raise DataError(
                f"{pickles[0]} is a pickle, which can run any code while it is read, and is not opened: convert it to "
                f"{folder / FILE} where you trust it, or remove it"
            )
    return Found(None, f"no {model}/{FILE} in {' or '.join(map(str, places))}")


def identity(model: str) -> str:
    """sha256 of the file that :func:`find` finds, empty without one: it belongs to what decides a run's numbers."""
    path = find(model).path
    if path is None:
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def overlay(
    parameters: Mapping[str, npt.NDArray[np.float64]], path: Path
) -> tuple[dict[str, npt.NDArray[np.float64]], int]:
    """The parameters with those of the file in place of their own, and how many were replaced.

    Names with and without the prefix ``bert.``, and LayerNorm's old names gamma and beta, are understood; a head that
    the file does not have keeps its own values.

    Raises:
        DataError: no safetensors file, another shape, or a parameter of the encoder is not in it.
        MissingPackageError: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingPackageError("safetensors", "bert", "reading pre-trained weights") from error
    try:
        raw = load_file(path)
    except (OSError, SafetensorError, TypeError) as error:
        raise DataError(f"{path} is not a safetensors file that NumPy can read ({error})") from error
    there = {_canonical(name): array for name, array in raw.items()}
    out, replaced = dict(parameters), 0
    for name, own in parameters.items():
        if name not in there:
            if name.startswith(("bert.embeddings.", "bert.encoder.")):
                raise DataError(f"{path} has no {name}: it is not a BERT encoder")
            continue
        if there[name].shape != own.shape:
            raise DataError(f"{path}: {name} has shape {there[name].shape}, expected {own.shape}: another model")
        out[name] = there[name].astype(np.float64)
        replaced += 1
    return out, replaced


def _canonical(name: str) -> str:
    if name.endswith("LayerNorm.gamma"):
        name = name.removesuffix("gamma") + "weight"
    if name.endswith("LayerNorm.beta"):
        name = name.removesuffix("beta") + "bias"
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _from_hub(model: str) -> Found:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingPackageError("huggingface-hub", "bert", f"{VARIABLE}=hub") from error
    try:
        return Found(Path(hf_hub_download(HUB[model], FILE)), "")
    except Exception as error:  # whatever the network, the hub or its cache raise: the run starts from random weights
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return Found(None, f"the hub gave no {HUB[model]}/{FILE} ({reason[0][:120]})")
