"""The optimisers alone, for an optax loop of your own: ``from curvebench.jax import mezo, oracle``.

These are the transformations that the benchmark runs, not copies of them. All arguments but the first are keyword-only.
Each pulls what it needs from the oracle of the step, which is made inside the jitted function::

    tx = adahessian(0.15)
    state = tx.init(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch, key):
        updates, state = tx.update(None, state, params, oracle=oracle(lambda p: loss(p, batch), key))
        return optax.apply_updates(params, updates), state

A method that asks for a layer's inputs and output gradients is told the layers: :func:`mkor` shows how.

The state is a plain pytree of arrays: saved and loaded with the parameters it continues with the same bits.
"""

from __future__ import annotations

from curvebench.kernels.geometry import Geometry
from curvebench.methods.adahessian_jax import adahessian
from curvebench.methods.ekfac_jax import ekfac
from curvebench.methods.eva_jax import eva
from curvebench.methods.forward_gradient_jax import forward_gradient
from curvebench.methods.hizoo_jax import hizoo
from curvebench.methods.kfac_jax import kfac
from curvebench.methods.lbfgs_jax import lbfgs
from curvebench.methods.mezo_jax import mezo
from curvebench.methods.mezo_momentum_jax import mezo_momentum
from curvebench.methods.mfac_jax import mfac
from curvebench.methods.mkor_h_jax import mkor_h
from curvebench.methods.mkor_jax import mkor
from curvebench.methods.muon_jax import muon
from curvebench.methods.sophia_h_jax import sophia_h
from curvebench.methods.zo_adam_jax import zo_adam
from curvebench.methods.zo_cge_jax import zo_cge
from curvebench.methods.zo_sgd_jax import zo_sgd
from curvebench.methods.zo_sign_jax import zo_sign
from curvebench.oracle.layers_jax import find_layers
from curvebench.oracle.standalone_jax import model_oracle, oracle

__all__ = [
    "Geometry",
    "adahessian",
    "ekfac",
    "eva",
    "find_layers",
    "forward_gradient",
    "hizoo",
    "kfac",
    "lbfgs",
    "mezo",
    "mezo_momentum",
    "mfac",
    "mkor",
    "mkor_h",
    "model_oracle",
    "muon",
    "oracle",
    "sophia_h",
    "zo_adam",
    "zo_cge",
    "zo_sgd",
    "zo_sign",
]
