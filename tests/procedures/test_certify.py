"""The certificate: its statements hold where they are cheap, and a broken one fails it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from curvebench.cli.main import cli
from curvebench.errors import MissingPackageError, UnknownNameError
from curvebench.procedures import certify
from curvebench.procedures.certify import Measured, Statement, exactness, rates

CHEAP = (
    "sgd-rotation-invariant",
    "nesterov-rotation-invariant",
    "diagonal-newton-exact-aligned",
    "conjugate-gradients-exact",
    "newton-affine-invariant",
    "gradient-descent-not-affine-invariant",
    "softmax-one-curvature",
    "gradient-descent-rate",
    "heavy-ball-cycles",
    "sensing-exact-linear",
    "kfac-exact-deep-linear",
    "mfac-woodbury-dense",
    "mkor-rank-one-inverse",
    "mezo-copy-bit-exact",
    "srht-excess",
    "uniform-sampling-fails",
    "same-seed-same-bits",
)


def one(value: float, low: float = -math.inf, high: float = math.inf) -> Statement:
    return Statement("toy", "a toy", lambda: Measured(value, "seen"), low, high)


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        (one(1.0, high=2.0), "pass"),
        (one(3.0, high=2.0), "fail"),
        (one(1.0, low=2.0), "fail"),
        (one(0.0, 0.0, 0.0), "pass"),
        (one(math.nan, high=2.0), "fail"),
        (one(math.inf, low=0.0), "pass"),
    ],
)
def test_a_statement_holds_inside_its_interval_alone(statement: Statement, outcome: str) -> None:
    (finding,) = certify.check([statement])
    assert finding.outcome == outcome


def test_what_goes_wrong_fails_and_a_missing_package_is_said() -> None:
    def broken() -> Measured:
        raise ZeroDivisionError("nothing")

    def absent() -> Measured:
        raise MissingPackageError("jax", "jax", "the comparison")

    first, second = certify.check([Statement("a", "a", broken, high=1), Statement("b", "b", absent, high=1)])
    assert (first.outcome, first.value, first.seen) == ("fail", None, "ZeroDivisionError: nothing")
    assert second.outcome == "not measured"
    assert "jax" in second.seen


def test_intervals_in_words() -> None:
    assert [one(0, high=1e-9).bound, one(0, low=40.0).bound, one(0, 0.5, 2.0).bound, one(0, 0.0, 0.0).bound] == [
        "<= 1e-09", ">= 40", "in [0.5, 2]", "= 0",
    ]  # fmt: skip


def test_statements_are_readable_alone_and_named_once() -> None:
    found = certify.statements()
    names = [statement.name for statement in found]
    assert len(set(names)) == len(names) >= 30
    assert set(CHEAP) <= set(names)
    assert all(len(s.sentence) > 30 and math.isfinite(min(abs(s.low), abs(s.high))) for s in found)


@pytest.mark.parametrize("name", CHEAP)
def test_cheap_statements_hold(name: str) -> None:
    (finding,) = certify.certify([name])
    assert finding.outcome == "pass", finding


@pytest.mark.nightly
def test_the_whole_certificate_holds() -> None:
    assert [f for f in certify.certify() if f.outcome != "pass"] == []


def test_an_unknown_statement_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="newton-affine-invariant"):
        list(certify.certify(["newton-affine-invarant"]))


def test_a_broken_method_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SGD that shrinks one coordinate depends on the basis: the certificate sees it."""
    import torch

    step = torch.optim.SGD.step

    def biased(self: torch.optim.SGD, closure: object = None) -> object:
        out = step(self, closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p[..., 0] *= 0.9
        return out

    monkeypatch.setattr(torch.optim.SGD, "step", biased)
    (finding,) = certify.certify(["sgd-rotation-invariant"])
    assert finding.outcome == "fail"
    assert finding.value is not None
    assert finding.value > 1e-3


def test_a_wrong_minimum_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from curvebench.procedures.certify import invariance

    right = invariance.problem

    def shifted(name: str, seed_block: int = 0, **options: object) -> object:
        found = right(name, seed_block, **options)
        assert found.optimum is not None
        return replace(found, optimum=found.optimum + 1e-4)

    monkeypatch.setattr(invariance, "CERTIFIED", ("logistic-breast-cancer",))
    monkeypatch.setattr(invariance, "problem", shifted)
    (finding,) = certify.certify(["nothing-below-the-minimum"])
    assert finding.outcome == "fail"
    assert finding.value is not None
    assert finding.value < -5e-5


def test_the_transform_is_orthogonal_and_its_own_inverse() -> None:
    x = np.random.default_rng(0).standard_normal((16, 3))
    once = exactness.hadamard(x)
    assert np.linalg.norm(once) == pytest.approx(np.linalg.norm(x))
    assert np.allclose(exactness.hadamard(once), x)


def test_the_piecewise_quadratic_has_the_slopes_that_it_says() -> None:
    from curvebench.procedures.certify.derivatives import Asker
    from curvebench.spec import Query

    ask = Asker(rates._piecewise())
    for x, slope in ((-1.0, -25.0), (0.5, 12.5), (1.5, 25.5), (3.0, 51.0)):
        assert ask(Query.GRADIENT, {"x": np.array([x])})[0] == pytest.approx(slope)


def test_the_verb_prints_json_and_its_exit_code_says_whether_all_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(cli, ["certify", "mkor-rank-one-inverse", "--json"])
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)
    assert (row["name"], row["outcome"], row["bound"]) == ("mkor-rank-one-inverse", "pass", "<= 1e-10")
    monkeypatch.setattr(certify, "statements", lambda: [one(3.0, high=2.0), one(1.0, high=2.0)])
    result = CliRunner().invoke(cli, ["certify"])
    assert result.exit_code == 1
    assert "fail" in result.stdout
    assert "1 of 2 statements hold" in result.stdout
    listed = CliRunner().invoke(cli, ["certify", "--list"])
    assert listed.exit_code == 0
    assert "toy" in listed.stdout
