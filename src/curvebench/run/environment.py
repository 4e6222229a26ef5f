"""What a run's process was set to, for its record: versions of the libraries and numbers of threads."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version

from threadpoolctl import threadpool_info

from curvebench.machine import THREAD_VARIABLES
from curvebench.types import Json

LIBRARIES = ("torch", "jax", "jaxlib", "optax", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """The libraries that a run may use, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def thread_settings(framework: str) -> Json:
    """How many threads the framework, the BLAS libraries and the environment's variables say."""
    pools = {f"{pool['user_api']}/{pool['internal_api']}": pool["num_threads"] for pool in threadpool_info()}
    variables = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    torch = sys.modules.get("torch") if framework == "torch" else None
    own = {} if torch is None else {"torch": torch.get_num_threads(), "torch interop": torch.get_num_interop_threads()}
    return {**own, **pools, **variables}
