"""curvebench: a benchmark harness and reproducibility suite for optimisation methods that approximate curvature.

The package is the engine; the content of the suite (method, task and dataset cards, studies, records) lies in the
top-level folders of the repository. Import the optimisers alone from :mod:`curvebench.torch` or :mod:`curvebench.jax`.
"""

__version__ = "0.1.0"
