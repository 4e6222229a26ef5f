"""The jax twins of the BERT tasks: BERT on a flat dict with the names and layouts of ``transformers``' model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from curvebench.oracle.jax import Apply
    from curvebench.tasks.bert_model import Bert

EPS = 1e-12
"""BERT's LayerNorm."""


def encoder(shape: Bert, params: dict[str, Any], tokens: Any, segments: Any, mask: Any, tap: Any) -> Any:
    """The last layer's hidden states ``[batch, length, width]``.

    Args:
        shape: sizes of the network.
        params: by torch's names.
        tokens: ``[batch, length]``.
        segments: ``[batch, length]``, 0 or 1.
        mask: added to the attention's logits, ``[batch, 1, 1, length]``.
        tap: watches layers, or None.
    """
    import jax.numpy as jnp
    from jax import lax
    from jax.nn import gelu, softmax

    from curvebench.tasks.layers_jax import layer_norm, linear

    place, size = "bert.embeddings", shape.width // shape.heads
    words = params[f"{place}.word_embeddings.weight"]
    # torch keeps the row of the filling token out of the gradient of the embedding
    words = jnp.concatenate([lax.stop_gradient(words[:1]), words[1:]])
    x = words[tokens] + params[f"{place}.token_type_embeddings.weight"][segments]
    x = x + params[f"{place}.position_embeddings.weight"][: tokens.shape[1]]
    x = layer_norm(params, f"{place}.LayerNorm", x, eps=EPS)
    batch, length = tokens.shape
    for index in range(shape.layers):
        name = f"bert.encoder.layer.{index}"
        q, k, v = (
            linear(params, f"{name}.attention.self.{part}", x, tap)
            .reshape(batch, length, shape.heads, size)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        weights = softmax(q @ k.swapaxes(-1, -2) / size**0.5 + mask, axis=-1)
        seen = (weights @ v).transpose(0, 2, 1, 3).reshape(batch, length, shape.width)
        seen = linear(params, f"{name}.attention.output.dense", seen, tap)
        x = layer_norm(params, f"{name}.attention.output.LayerNorm", seen + x, eps=EPS)
        up = gelu(linear(params, f"{name}.intermediate.dense", x, tap), approximate=False)
        x = layer_norm(params, f"{name}.output.LayerNorm", linear(params, f"{name}.output.dense", up, tap) + x, eps=EPS)
    return x


def jax_classifier(shape: Bert, outputs: int) -> Apply:
    """The twin of :func:`curvebench.tasks.bert_torch.torch_classifier`."""
    import jax.numpy as jnp

    from curvebench.tasks.layers_jax import linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        tokens, segments = inputs[:, 0], inputs[:, 1]
        dtype = params["classifier.weight"].dtype
        lowest = float(np.finfo(dtype).min)
        mask = jnp.where(tokens == 0, lowest, 0.0).astype(dtype)[:, None, None]
        first = encoder(shape, params, tokens, segments, mask, tap)[:, 0]
        logits = linear(params, "classifier", jnp.tanh(linear(params, "bert.pooler.dense", first, tap)), tap)
        return (logits[..., 0] if outputs == 1 else logits), {}

    return apply


def jax_masked(shape: Bert, length: int) -> Apply:
    """The twin of :func:`curvebench.tasks.bert_torch.torch_masked`."""
    import jax.numpy as jnp
    from jax.nn import gelu

    from curvebench.tasks.layers_jax import layer_norm, linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        tokens, positions = inputs[:, :length], inputs[:, length:]
        mask = jnp.zeros((1, 1, 1, 1), params["cls.predictions.bias"].dtype)
        hidden = encoder(shape, params, tokens, jnp.zeros_like(tokens), mask, tap)
        chosen = jnp.take_along_axis(hidden, positions[..., None], axis=1)
        head = "cls.predictions.transform"
        chosen = gelu(linear(params, f"{head}.dense", chosen, tap), approximate=False)
        chosen = layer_norm(params, f"{head}.LayerNorm", chosen, eps=EPS)
        words = params["bert.embeddings.word_embeddings.weight"]
        return chosen @ words.T + params["cls.predictions.bias"], {}

    return apply
