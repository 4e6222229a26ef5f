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

PAPER = """\
name = "claim"
title = "A paper"
authors = "Nobody"
year = 2020
url = "https://example.org"
methods = ["mine"]

[[tables]]
id = "table-1"
title = "Accuracy"
place = "Table 1"
page = 3
source = "paper"
read = "notes 1"
unit = "accuracy, %"
direction = "max"
n = 5
setup = "10 epochs"
not_run = "needs a GPU"
note = "all of them"
cells = [
  { id = "a", row = "A", column = "C", value = 90, spread = 0.5 },
  { id = "b", row = "B", column = "C", value = 91.5, n = 3, baseline = "a", setup = "batch 8", note = "last" },
  { id = "c", row = "B", column = "D", text = "diverge", unit = "loss" },
]

[[tables]]
id = "quoted"
title = "Accuracy, quoted"
place = "README"
source = "third-party"
by = "Somebody"
read = "notes 2"
unit = "gap"
direction = "min"
setup = "their own"
margin = 0.1
margin_reason = "a tenth"

[[tables.cells]]
id = "d"
row = "A"
column = "C"
value = 1e-3
measure = { task = "valley", method = "mine", scale = "quick", quantity = "final" }

[[tables.cells]]
id = "e"
row = "B"
column = "C"
value = 2
margin = 0.2
margin_reason = "a fifth"
baseline = "d"

[tables.cells.measure]
task = "valley"
method = "mine"
scale = "quick"
quantity = "best"
hyperparameters = { mode = "slow" }

[[claims]]
id = "better"
statement = "B is better than A."
place = "abstract"
read = "notes 3"
tested_by = "curvebench bench small"
rule = "the difference is positive"
decision = { kind = "greater", quantity = "accuracy", than = "a" }
not_run = "needs records"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cards root with one valid card of each kind."""
    for kind, name, text in (
        ("methods", "mine", METHOD),
        ("tasks", "valley", TASK),
        ("datasets", "numbers", DATASET),
        ("studies", "small", STUDY),
        ("papers", "claim", PAPER),
    ):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{name}.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path))
    return tmp_path
