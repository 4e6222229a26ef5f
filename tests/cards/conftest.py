"""A small cards root that tests may spoil."""

from pathlib import Path

import pytest

METHOD = """\
name = "mine"
title = "Mine"
family = "first-order"
summary = "Goes downhill."
needs = ["gradient"]

[hyperparameters.lr]
default = 1e-3
range = "(0, inf)"
about = "step size"

[hyperparameters.steps]
default = 3
range = "[1, 10]"

[hyperparameters.mode]
default = "fast"
choices = ["fast", "slow"]

[hyperparameters.nesterov]
default = false

[search.lr]
low = 1e-4
high = 1e-1
scale = "log"

[cost]
step = { gradient = "1/steps" }
state = "2*d"

[implementation.torch]
target = "torch.optim:SGD"
arguments = { lr = "$lr", pair = ["$steps", 2], inner = { mode = "$mode" }, nesterov = "$nesterov", word = "plain" }
"""

TASK = """\
name = "valley"
title = "Valley"
family = "regression"
summary = "A quadratic."
objective = "f(x) = x^2"
module = "mypkg.valley"
dtype = "float64"
offers = ["loss", "gradient"]

[refuses]
hvp = "no second derivative: use hill"

[metric]
name = "gap"
label = "f(x) - f*"
direction = "min"

[optimum]
value = 0.0
certificate = "it is a square"
tolerance = 0.0

[options]
n = 10
sizes = [1, 2]

[scales.quick]
steps = 5
batch = "full"
evaluate_every = 1
target = 1e-3

[scales.standard]
steps = 50
seconds = 2
batch = 4
evaluate_every = 10
target = 1e-6
options = { n = 100 }
"""

DATASET = f"""\
name = "numbers"
title = "Numbers"
licence = "CC0-1.0"
terms = "none"
citation = "nobody"
homepage = "https://example.org"
source = "download"
loader = "mypkg.numbers:load"
folder = "numbers"

[[archives]]
url = "https://example.org/numbers.tar.gz"
name = "numbers.tar.gz"
bytes = 10
md5 = "{"0" * 32}"

[[files]]
path = "inner/numbers.bin"
bytes = 8
sha256 = "{"a" * 64}"

[splits]
train = 6
test = 2

[normalisation]
mean = [0.5, 0.5]
std = [1, 2.0]
"""

STUDY = """\
name = "small"
title = "Small"
summary = "One of each."
tasks = ["valley"]
methods = ["mine"]
frameworks = ["torch"]
seeds = 3
scale = "quick"
hyperparameters = "card"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cards root with one valid card of each kind."""
    for kind, name, text in (
        ("methods", "mine", METHOD),
        ("tasks", "valley", TASK),
        ("datasets", "numbers", DATASET),
        ("studies", "small", STUDY),
    ):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{name}.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path))
    return tmp_path
