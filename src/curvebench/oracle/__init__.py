"""What may be asked of a task at a point, and the ledger that counts it.

:mod:`curvebench.oracle.torch` and :mod:`curvebench.oracle.jax` are the two implementations of one contract; this
package itself imports neither framework.
"""
