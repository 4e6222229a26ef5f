"""The methods: one file per algorithm and framework, and one generic adapter per framework for everybody else's.

:func:`resolve` turns what a user names into a card: a name in the registry, a card file, ``module:Class``,
``file.py:Class``, or a name in the entry-point group ``curvebench.methods``.
"""

from __future__ import annotations

from curvebench.methods.resolve import resolve

__all__ = ["resolve"]
