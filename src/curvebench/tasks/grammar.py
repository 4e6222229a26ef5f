"""A stochastic regular grammar whose masked tokens have exactly known distributions.

Derivations are ``A_s -> w A_s'``: from non-terminal s the token w is written with probability ``B[s, w]`` and s'
follows with probability ``A[s, s']``, that is a hidden Markov chain of s. Every probability is positive. Given the
visible tokens of a sentence, the distribution of a masked one follows from the forward-backward recursion (Rabiner
1989), where a mask lets every non-terminal pass. Its entropy is the least cross-entropy that any model can have there.
Shapes: ``S`` non-terminals, ``V`` tokens, ``n`` sentences of ``length``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Grammar(NamedTuple):
    """Probabilities of the rules."""

    start: Floats  # [S]
    follow: Floats  # A [S, S], rows sum to 1
    write: Floats  # B [S, V], rows sum to 1


def draw_grammar(rng: np.random.Generator, states: int, tokens: int, sharpness: float = 0.1) -> Grammar:
    """Rules from a Dirichlet distribution, mixed with one part in fifty of the uniform one.

    Args:
        rng: draws the rules.
        states: non-terminals.
        tokens: of the vocabulary.
        sharpness: the Dirichlet distribution's parameter: the smaller, the fewer rules carry a non-terminal.

    Raises:
        ValueError: fewer than two non-terminals or tokens, or a sharpness that is not positive.
    """
    if states < 2 or tokens < 2 or sharpness <= 0:
        raise ValueError(f"states = {states}, tokens = {tokens}, sharpness = {sharpness}: must be >= 2, >= 2, > 0")

    def rows(size: int) -> Floats:
        return 0.98 * rng.dirichlet(np.full(size, sharpness), states) + 0.02 / size

    return Grammar(np.full(states, 1 / states), rows(states), rows(tokens))


def sentences(rng: np.random.Generator, grammar: Grammar, n: int, length: int) -> Integers:
    """Draw ``[n, length]`` tokens, by inverting the cumulated probabilities."""
    starts, follows, writes = (np.cumsum(p, axis=-1) for p in grammar)
    uniform = rng.random((2, length, n))
    state = _invert(np.broadcast_to(starts, (n, len(starts))), uniform[0, 0])
    written = np.empty((n, length), dtype=np.int64)
    for place in range(length):
        if place:
            state = _invert(follows[state], uniform[0, place])
        written[:, place] = _invert(writes[state], uniform[1, place])
    return written


def _invert(cumulated: Floats, uniform: Floats) -> Integers:
    below: Integers = (cumulated < uniform[:, None]).sum(axis=1)
    return below.clip(max=cumulated.shape[1] - 1)  # the last sum may be a rounding below 1


def masks(rng: np.random.Generator, n: int, length: int, count: int) -> Integers:
    """``[n, count]`` ascending positions, each sentence's drawn without replacement."""
    return np.sort(np.argsort(rng.random((n, length)), axis=1)[:, :count], axis=1)


def posterior(grammar: Grammar, written: Integers, masked: Integers) -> Floats:
    """``P(token at a masked position | all tokens that are not masked)`` ``[n, count, V]``, exact.

    Args:
        grammar: the rules.
        written: ``[n, length]`` tokens; what stands at masked positions is not looked at.
        masked: ``[n, count]`` positions.
    """
    n, length = written.shape
    seen = grammar.write.T[written]  # [n, length, S]: likelihood of each token under each non-terminal
    np.put_along_axis(seen, masked[:, :, None], 1.0, axis=1)
    forward, backward = np.empty_like(seen), np.ones_like(seen)
    prior = np.broadcast_to(grammar.start, (n, len(grammar.start)))
    for place in range(length):
        forward[:, place] = prior  # before the token at this place is looked at
        joint = prior * seen[:, place]
        prior = joint / joint.sum(axis=1, keepdims=True) @ grammar.follow
    for place in range(length - 2, -1, -1):
        passed = (seen[:, place + 1] * backward[:, place + 1]) @ grammar.follow.T
        backward[:, place] = passed / passed.sum(axis=1, keepdims=True)
    weight = np.take_along_axis(forward * backward, masked[:, :, None], axis=1)
    found: Floats = weight / weight.sum(axis=2, keepdims=True) @ grammar.write
    return found


def entropy(distributions: Floats) -> float:
    """Mean entropy in nats of distributions along the last axis."""
    return float(-(distributions * np.log(distributions)).sum(axis=-1).mean())
