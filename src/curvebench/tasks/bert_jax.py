"""The jax twins of the BERT tasks: BERT on a flat dict with the names and layouts of ``transformers``' model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from curvebench.tasks.bert_model import dropout_sites

if TYPE_CHECKING:
    from curvebench.oracle.jax import Apply
    from curvebench.tasks.bert_model import Bert

    Drop = Callable[[Any, str], Any]

EPS = 1e-12
"""BERT's LayerNorm."""


def encoder(
    shape: Bert, params: dict[str, Any], tokens: Any, segments: Any, mask: Any, tap: Any, drop: Drop | None = None
) -> Any:
    """The last layer's hidden states ``[batch, length, width]``.

    Args:
        shape: sizes of the network.
        params: by torch's names.
        tokens: ``[batch, length]``.
        segments: ``[batch, length]``, 0 or 1.
        mask: added to the attention's logits, ``[batch, 1, 1, length]``.
        tap: watches layers, or None.
        drop: dropout at a site, or None.
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
    drop = drop or _keep
    x = drop(layer_norm(params, f"{place}.LayerNorm", x, eps=EPS), "embeddings.dropout")
    batch, length = tokens.shape
    for index in range(shape.layers):
        name, at = f"bert.encoder.layer.{index}", f"encoder.layer.{index}"
        q, k, v = (
            linear(params, f"{name}.attention.self.{part}", x, tap)
            .reshape(batch, length, shape.heads, size)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        weights = drop(softmax(q @ k.swapaxes(-1, -2) / size**0.5 + mask, axis=-1), f"{at}.attention.self.dropout")
        seen = (weights @ v).transpose(0, 2, 1, 3).reshape(batch, length, shape.width)
        seen = drop(linear(params, f"{name}.attention.output.dense", seen, tap), f"{at}.attention.output.dropout")
        x = layer_norm(params, f"{name}.attention.output.LayerNorm", seen + x, eps=EPS)
        up = gelu(linear(params, f"{name}.intermediate.dense", x, tap), approximate=False)
        down = drop(linear(params, f"{name}.output.dense", up, tap), f"{at}.output.dropout")
        x = layer_norm(params, f"{name}.output.LayerNorm", down + x, eps=EPS)
    return x


def _keep(inputs: Any, site: str) -> Any:
    del site
    return inputs


def dropper(shape: Bert, keys: Any, rate: float) -> Drop:
    """Dropout at a site by its name, with the keys ``[batch]`` of a training batch."""
    from curvebench.tasks.dropout_jax import dropout

    sites = {site.name: site for site in dropout_sites(shape)}

    def drop(inputs: Any, name: str) -> Any:
        return dropout(inputs, keys, rate, sites[name].number, sites[name].strides)

    return drop


def jax_classifier(shape: Bert, outputs: int, dropout: float = 0.0) -> Apply:
    """The twin of :func:`curvebench.tasks.bert_torch.torch_classifier`; ``dropout`` is that of the training mode."""
    import jax.numpy as jnp

    from curvebench.tasks.layers_jax import linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        tokens, segments = inputs[:, 0], inputs[:, 1]
        dtype = params["classifier.weight"].dtype
        lowest = float(np.finfo(dtype).min)
        mask = jnp.where(tokens == 0, lowest, 0.0).astype(dtype)[:, None, None]
        drop = dropper(shape, inputs[:, 2, 0], dropout) if dropout else _keep
        first = encoder(shape, params, tokens, segments, mask, tap, drop)[:, 0]
        pooled = drop(jnp.tanh(linear(params, "bert.pooler.dense", first, tap)), "classifier")
        logits = linear(params, "classifier", pooled, tap)
        return (logits[..., 0] if outputs == 1 else logits), {}

    return apply


def jax_masked(shape: Bert, length: int, dropout: float = 0.0) -> Apply:
    """The twin of :func:`curvebench.tasks.bert_torch.torch_masked`; ``dropout`` is that of the training mode."""
    import jax.numpy as jnp
    from jax.nn import gelu

    from curvebench.tasks.layers_jax import layer_norm, linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        drop = dropper(shape, inputs[:, -1], dropout) if dropout else None
        inputs = inputs[:, :-1] if dropout else inputs
        tokens, positions = inputs[:, :length], inputs[:, length:]
        mask = jnp.zeros((1, 1, 1, 1), params["cls.predictions.bias"].dtype)
        hidden = encoder(shape, params, tokens, jnp.zeros_like(tokens), mask, tap, drop)
        chosen = jnp.take_along_axis(hidden, positions[..., None], axis=1)
        head = "cls.predictions.transform"
        chosen = gelu(linear(params, f"{head}.dense", chosen, tap), approximate=False)
        chosen = layer_norm(params, f"{head}.LayerNorm", chosen, eps=EPS)
        words = params["bert.embeddings.word_embeddings.weight"]
        return chosen @ words.T + params["cls.predictions.bias"], {}

    return apply
