"""Makes ``synthetic``, which stands with the tests of the store, and the helpers here importable; one site for all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "store"), str(Path(__file__).parent)]


@pytest.fixture(scope="session")
def made_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a study with failures, an older version of a row, a hostile title and a tuning pool."""
    from sites import build

    return build(tmp_path_factory.mktemp("site"))
