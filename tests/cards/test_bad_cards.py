"""Every kind of bad card, with the exact message."""

from pathlib import Path

import pytest

from curvebench import cards
from curvebench.errors import CardError, UnknownNameError

FILES = {"methods": "mine", "tasks": "valley", "datasets": "numbers", "studies": "small", "papers": "claim"}
FORMULA = "allowed are numbers, + - * / **, parentheses, max, min, ceil, log2 and named variables"
QUERIES = "'loss', 'gradient', 'jvp', 'hvp', 'ggnvp', 'per_sample_gradient', 'layer_statistics' or 'loss_function'"

METHODS = [
    # what stands there, what replaces it, the message
    ("low = 1e-4", "low = -1.0", "search.lr.low = -1.0: must be > 0"),
    ("[search.lr]", "[serch.lr]", "serch: unknown key: did you mean 'search'?"),
    ('scale = "log"', 'skale = "log"', "search.lr.skale: unknown key: did you mean 'scale'?"),
    ('scale = "log"', 'scale = "logarithmic"', "search.lr.scale = \"logarithmic\": must be 'log' or 'linear'"),
    ("high = 1e-1", "high = 1e-5", "search.lr.high = 1e-05: must be > low = 0.0001"),
    ("high = 1e-1", "high = 1e-4", "search.lr.high = 0.0001: must be > low = 0.0001"),
    ("high = 1e-1", 'high = "1"', 'search.lr.high = "1": must be a number'),
    ("high = 1e-1", "high = true", "search.lr.high = true: must be a number"),
    ("high = 1e-1", "high = inf", "search.lr.high = inf: must be finite"),
    ("high = 1e-1\n", "", "search.lr.high: missing key: upper end, inside the hyperparameter's range; > low"),
    ("[search.lr]", "[search.rl]", "search.rl: not a declared hyperparameter: did you mean 'lr'?"),
    ("[search.lr]", "[search.mode]", "search.mode: only numbers can be searched over an interval"),
    ('low = 1e-4\nhigh = 1e-1\nscale = "log"', 'low = -1\nhigh = 1\nscale = "linear"',
     "search.lr.low = -1: must lie in (0, inf)"),
    ("[search.lr]\nlow = 1e-4\nhigh = 1e-1", "[search.steps]\nlow = 1.5\nhigh = 4",
     "search.steps.low = 1.5: must be a whole number, as the hyperparameter is"),
    ("[search.lr]\nlow = 1e-4\nhigh = 1e-1", "[search.steps]\nlow = 1\nhigh = 11",
     "search.steps.high = 11: must lie in [1, 10]"),
    ('name = "mine"', 'name = "yours"', 'name = "yours": must equal the file\'s stem, \'mine\''),
    ('name = "mine"', 'name = "Mine"', 'name = "Mine": must equal the file\'s stem, \'mine\'\n'
     'methods/mine.toml: name = "Mine": must be lower-case letters, digits and single hyphens'),
    ('name = "mine"\n', "", "name: missing key: the name on the command line: the file's stem"),
    ('title = "Mine"', "title = 3", "title = 3: must be a string"),
    ('title = "Mine"', 'title = ""', 'title = "": must not be empty'),
    ('summary = "Goes downhill."\n', "", "summary: missing key: one sentence"),
    ('"first-order"', '"firstorder"', "family = \"firstorder\": must be 'zeroth-order', 'first-order', 'quasi-newton' "
     "or 'second-order'"),
    ('needs = ["gradient"]', 'needs = ["gradient", "gradients"]', f'needs[1] = "gradients": must be {QUERIES}'),
    ('needs = ["gradient"]', 'needs = "gradient"', 'needs = "gradient": must be a list'),
    ('needs = ["gradient"]', 'needs = ["gradient"]\ntwin = 1', "twin = 1: must be true or false"),
    ('needs = ["gradient"]', 'needs = ["gradient"]\ntwin = false',
     "twin_reason: missing key: twin = false needs the reason why torch and jax differ"),
    ('needs = ["gradient"]', 'needs = ["gradient"]\ntwin_reason = "x"', "twin_reason: only allowed with twin = false"),
    ('needs = ["gradient"]', 'needs = ["gradient"]\npaper = "x"', 'paper = "x": must be a table'),
    ('needs = ["gradient"]', 'needs = ["gradient"]\npaper = { title = "x", url = "x.org" }',
     'paper.url = "x.org": must start with http:// or https://'),
    ('needs = ["gradient"]', 'needs = ["gradient"]\npaper = { title = "x", year = 17 }',
     "paper.year = 17: must be >= 1600"),
    ("default = 1e-3", "default = [1]",
     "hyperparameters.lr.default = [1]: must be a number or true or false or a string"),
    ("default = 1e-3", "default = 0.0", "hyperparameters.lr.default = 0.0: must lie in (0, inf)"),
    ("default = 1e-3", "default = nan", "hyperparameters.lr.default = nan: must be finite"),
    ("default = 1e-3", "default = 2025-01-01",
     "hyperparameters.lr.default = 2025-01-01: no card holds dates: quote it"),
    ('default = 1e-3\nrange = "(0, inf)"', "default = 1e-3",
     "hyperparameters.lr.range: missing key: a number needs the interval it lies in, such as (0, inf) or [0, 1)"),
    ('range = "(0, inf)"', 'range = "> 0"',
     'hyperparameters.lr.range = "> 0": must be an interval such as (0, inf) or [0, 1)'),
    ('range = "(0, inf)"', 'range = "(0, inf)"\nchoices = ["a"]',
     "hyperparameters.lr.choices: only allowed for strings: a number has a range"),
    ('default = "fast"', 'default = "fats"', "hyperparameters.mode.default = \"fats\": must be 'fast' or 'slow'"),
    ('choices = ["fast", "slow"]', "",
     "hyperparameters.mode.choices: missing key: a string needs the list of all that are allowed"),
    ('choices = ["fast", "slow"]', "choices = []", "hyperparameters.mode.choices = []: must not be empty"),
    ('choices = ["fast", "slow"]', 'choices = ["fast", "slow"]\nrange = "[0, 1]"',
     "hyperparameters.mode.range: only allowed for numbers: a string has choices"),
    ("default = false", 'default = false\nrange = "[0, 1]"',
     "hyperparameters.nesterov: a boolean takes neither range nor choices"),
    ("[hyperparameters.nesterov]\ndefault = false", "[hyperparameters]\nnesterov = false",
     "hyperparameters.nesterov = false: must be a table"),
    ("gradient = \"1/steps\"", "hvp = 1", 'cost.step.hvp: not in needs = ["gradient"]'),
    ("gradient = \"1/steps\"", "gradiant = 1", "cost.step.gradiant: unknown key: did you mean 'gradient' or "
     "'per_sample_gradient'?"),
    ("gradient = \"1/steps\"", "gradient = -1", "cost.step.gradient = -1: must be >= 0"),
    ("gradient = \"1/steps\"", "gradient = true", "cost.step.gradient = true: must be a number or a string"),
    ('state = "2*d"', 'state = "2*dd"', "cost.state = \"2*dd\": unknown variable 'dd': did you mean 'd'?"),
    ('state = "2*d"', 'state = "2*mode"', "cost.state = \"2*mode\": unknown variable 'mode': known are batch, d, lr, "
     "nesterov, steps"),
    ('state = "2*d"', 'state = "d.real"', f"cost.state = \"d.real\": 'd.real' is not allowed: {FORMULA}"),
    ('state = "2*d"', 'state = "2d"', f'cost.state = "2d": not a formula: {FORMULA}'),
    ("lr = \"$lr\"", "lr = \"$rl\"",
     'implementation.torch.arguments.lr = "$rl": not a declared hyperparameter: did you '
     "mean 'lr'?\nmethods/mine.toml: hyperparameters.lr: not used in implementation.torch.arguments: pass it on as "
     '"$lr" or drop it'),
    ('["$steps", 2]', '["$stepz", "$steps"]',
     'implementation.torch.arguments.pair[0] = "$stepz": not a declared hyperparameter: did you mean \'steps\'?'),
    (', nesterov = "$nesterov"', "",
     "hyperparameters.nesterov: not used in implementation.torch.arguments: pass it on as "
     '"$nesterov" or drop it'),
    ('target = "torch.optim:SGD"', 'target = "torch.optim.SGD"',
     'implementation.torch.target = "torch.optim.SGD": must read module:attribute or file.py:attribute'),
    ("[implementation.torch]", "[implementation.pytorch]",
     "implementation.pytorch: unknown key: did you mean 'torch'?"),
    ("[implementation.torch]", "[implementations.torch]", "implementation: missing key: one table per framework\n"
     "methods/mine.toml: implementations: unknown key: did you mean 'implementation'?"),
    ("[hyperparameters.steps]", '[hyperparameters."my steps"]\ndefault = false\n[hyperparameters.steps]',
     "hyperparameters.my steps: this name must be a Python identifier"),
]  # fmt: skip

TASKS = [
    ('dtype = "float64"', 'dtype = "double"', "dtype = \"double\": must be 'float32' or 'float64'"),
    ("[refuses]", "[refuses]\ngradient = \"no\"",
     "refuses.gradient: also in offers: a query is either offered or refused"),
    ("[refuses]", "[refuses]\nhessian = \"no\"", "refuses.hessian: unknown key: known are ggnvp, gradient, hvp, jvp, "
     "layer_statistics, loss, loss_function, per_sample_gradient"),
    ('offers = ["loss", "gradient"]', 'offers = ["loss", "loss"]', "offers: 'loss' is listed twice"),
    ('direction = "min"', 'direction = "down"', "metric.direction = \"down\": must be 'min' or 'max'"),
    ("tolerance = 0.0", "tolerance = -1", "optimum.tolerance = -1: must be >= 0"),
    ("steps = 5\n", "steps = 0\n", "scales.quick.steps = 0: must be >= 1"),
    ("steps = 5\n", "steps = 5.5\n", "scales.quick.steps = 5.5: must be a whole number"),
    ("seconds = 2", "seconds = 0", "scales.standard.seconds = 0: must be > 0"),
    ('batch = "full"', 'batch = "all"', "scales.quick.batch = \"all\": must be a whole number or 'full'"),
    ("batch = 4", "batch = 0", "scales.standard.batch = 0: must be >= 1 or 'full'"),
    ("[scales.quick]", "[scales.fast]", "scales.fast: unknown key: known are paper, quick, standard"),
    ("target = 1e-3\n", "", "scales.quick.target: missing key: value of the metric that counts as reached"),
    ("n = 10\n", "n = { a = 1 }\n",
     "options.n = {...}: must be a number or true or false or a string or a list"),
    ('module = "mypkg.valley"', 'module = "mypkg/valley.py"',
     'module = "mypkg/valley.py": must be the dotted name of a module'),
    ('family = "regression"', 'family = "vision"', "family = \"vision\": must be 'cifar', 'bert' or 'regression'"),
]  # fmt: skip

DATASETS = [
    ('source = "download"', 'source = "web"', "source = \"web\": must be 'download', 'scikit-learn' or 'generated'"),
    ('folder = "numbers"\n', "", 'folder: missing key: source = "download" needs the subfolder of a data root'),
    ('folder = "numbers"', 'folder = "../numbers"', 'folder = "../numbers": must not leave the data root'),
    ('folder = "numbers"', 'folder = "/numbers"', 'folder = "/numbers": must be a relative path with forward slashes'),
    ("inner/numbers.bin", "../numbers.bin", 'files[0].path = "../numbers.bin": must not leave the data set\'s folder'),
    ("inner/numbers.bin", "/etc/passwd", 'files[0].path = "/etc/passwd": must be a relative path with forward slashes'),
    (f'sha256 = "{"a" * 64}"', "", "files[0]: missing key: md5 or sha256, or the content cannot be checked"),
    (f'sha256 = "{"a" * 64}"', 'sha256 = "A0"', 'files[0].sha256 = "A0": must be 64 lower-case hexadecimal digits'),
    (f'md5 = "{"0" * 32}"', 'md5 = "0"', 'archives[0].md5 = "0": must be 32 lower-case hexadecimal digits'),
    ("bytes = 8", "bytes = 0", "files[0].bytes = 0: must be >= 1"),
    ("[[files]]", "[files]", "files = {...}: must be a list"),
    ("test = 2", "testing = 2", "splits.testing: unknown key: did you mean 'test' or 'train'?"),
    ("std = [1, 2.0]", "std = [1]", "normalisation.std: must have as many numbers as mean, 2, has 1"),
    ("std = [1, 2.0]", "std = [1, 0]", "normalisation.std[1] = 0: must be > 0"),
    ('homepage = "https://example.org"', 'homepage = "example.org"',
     'homepage = "example.org": must start with http:// or https://'),
]  # fmt: skip

STUDIES = [
    ("seeds = 3", "seeds = 0", "seeds = 0: must be >= 1"),
    ('methods = ["mine"]', "methods = []", "methods = []: must not be empty"),
    ('methods = ["mine"]', 'methods = ["mine", "mine"]', "methods: 'mine' is listed twice"),
    ('frameworks = ["torch"]', 'frameworks = ["pytorch"]', "frameworks[0] = \"pytorch\": must be 'torch' or 'jax'"),
    ('scale = "quick"', 'scale = "small"', "scale = \"small\": must be 'quick', 'standard' or 'paper'"),
    ('hyperparameters = "card"', 'hyperparameters = "best"', "hyperparameters = \"best\": must be 'tuned' or 'card'"),
    ('hyperparameters = "card"', 'hyperparameters = "card"\n[budget]\nsecond = 3',
     "budget.second: unknown key: did you mean 'seconds'?"),
    ('hyperparameters = "card"', 'hyperparameters = "card"\n[budget]\nsteps = 0', "budget.steps = 0: must be >= 1"),
]  # fmt: skip

PAPERS = [
    ('id = "b", row', 'id = "a", row', 'tables[0].cells[1].id = "a": is used twice\n'
     'papers/claim.toml: tables[0].cells[1].baseline = "a": must be another cell'),
    ('id = "quoted"', 'id = "table-1"', 'tables[1].id = "table-1": is used twice'),
    ('source = "paper"', 'source = "book"',
     "tables[0].source = \"book\": must be 'paper', 'code', 'model-card', 'rerun' or 'third-party'"),
    ('by = "Somebody"\n', "", 'tables[1].by: missing key: source = "third-party" needs the name of who says it'),
    ("value = 90, ", "", "tables[0].cells[0]: needs either value, or text for what is no number\n"
     "papers/claim.toml: tables[0].cells[0].spread: only allowed with a value\n"
     'papers/claim.toml: tables[0].cells[1].baseline = "a": must be a cell with a value'),
    ("value = 90, ", 'value = "90", ', 'tables[0].cells[0].value = "90": must be a number'),
    ("value = 90, ", 'value = 90, text = "90", ',
     "tables[0].cells[0]: needs either value, or text for what is no number"),
    ("spread = 0.5", "spread = -0.5", "tables[0].cells[0].spread = -0.5: must be >= 0"),
    ('baseline = "a"', 'baseline = "aa"',
     'tables[0].cells[1].baseline = "aa": no cell of this paper: did you mean \'a\'?'),
    ('baseline = "d"', 'baseline = "a"', 'tables[1].cells[1].baseline = "a": must be a cell with a measure'),
    ('margin = 0.1\nmargin_reason = "a tenth"\n', "",
     "tables[1].cells[0].baseline: missing key: a proxy is held against a baseline cell, or needs a margin of its own"),
    ('margin_reason = "a tenth"\n', "",
     "tables[1].margin_reason: missing key: a margin needs its reason, said before any run"),
    ("margin = 0.2\n", "",
     "tables[1].cells[1].margin_reason: only allowed with a margin"),
    ("margin = 0.1\n", "margin = 0\n", "tables[1].margin = 0: must be > 0"),
    ('not_run = "needs a GPU"\n', "",
     "tables[0].cells[0].measure: missing key: what curvebench measures of it, or not_run = 'needs ...'\n"
     "papers/claim.toml: tables[0].cells[1].measure: missing key: what curvebench measures of it, or "
     "not_run = 'needs ...'\n"
     "papers/claim.toml: tables[0].cells[2].measure: missing key: what curvebench measures of it, or "
     "not_run = 'needs ...'"),
    ('not_run = "needs records"', 'not_run = "no time"', "claims[0].not_run = \"no time\": must begin with 'needs '"),
    ('quantity = "final" }', 'quantity = "accuracy" }',
     "tables[1].cells[0].measure.quantity = \"accuracy\": must be 'final', 'best', 'test', 'best-test', 'steps', "
     "'seconds', 'step-seconds' or 'peak-bytes'"),
    ('kind = "greater"', 'kind = "at-most"',
     'claims[0].decision.bound: missing key: kind = "at-most" needs it\n'
     'papers/claim.toml: claims[0].decision.than: not allowed with kind = "at-most"'),
    ('kind = "greater", quantity = "accuracy", than = "a"', 'kind = "between", quantity = "x", low = 2, high = 1',
     "claims[0].decision.high = 1: must be >= low = 2"),
    ("[[claims]]", "[[claim]]", "claim: unknown key: did you mean 'claims'?"),
    ("year = 2020", "year = 20", "year = 20: must be >= 1600"),
]  # fmt: skip

CASES = [
    (kind, *case)
    for kind, listed in (
        ("methods", METHODS),
        ("tasks", TASKS),
        ("datasets", DATASETS),
        ("studies", STUDIES),
        ("papers", PAPERS),
    )
    for case in listed
]


@pytest.mark.parametrize(("kind", "old", "new", "message"), CASES, ids=[case[3][:60] for case in CASES])
def test_exact_message(root: Path, kind: str, old: str, new: str, message: str) -> None:
    name = FILES[kind]
    file = root / kind / f"{name}.toml"
    text = file.read_text(encoding="utf-8")
    cards.load(kind, name)  # valid before it is spoilt
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(CardError) as caught:
        cards.load(kind, name)
    assert str(caught.value) == f"{kind}/{name}.toml: {message}"


def test_all_problems_are_listed(root: Path) -> None:
    file = root / "methods" / "mine.toml"
    text = file.read_text(encoding="utf-8")
    for old, new in (
        ("low = 1e-4", "low = -1.0"),
        ('title = "Mine"', "title = 3"),
        ("[cost]", "[kost]"),
        ("$mode", "$mod"),
    ):
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CardError) as caught:
        cards.load("methods", "mine")
    assert str(caught.value).splitlines() == [
        "methods/mine.toml: title = 3: must be a string",
        "methods/mine.toml: kost: unknown key: did you mean 'cost'?",
        "methods/mine.toml: search.lr.low = -1.0: must be > 0",
        'methods/mine.toml: implementation.torch.arguments.inner.mode = "$mod": not a declared hyperparameter: '
        "did you mean 'mode'?",
        "methods/mine.toml: hyperparameters.mode: not used in implementation.torch.arguments: "
        'pass it on as "$mode" or drop it',
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'name = "mine"\ntitle =\n', "line 2, column 8: not TOML: Invalid value"),
        (b'name = "mine"\nname = "mine"\n', "line 2, column 14: not TOML: Cannot overwrite a value"),
        (b'name = "mine', "end of document: not TOML: Unterminated string"),
        (b'name = "\xff"', "byte 8: not UTF-8, which TOML must be"),
    ],
)
def test_not_toml(root: Path, content: bytes, message: str) -> None:
    (root / "methods" / "mine.toml").write_bytes(content)
    with pytest.raises(CardError) as caught:
        cards.load("methods", "mine")
    assert str(caught.value) == f"methods/mine.toml: {message}"


def test_unreadable(root: Path) -> None:
    (root / "methods" / "folder.toml").mkdir()
    with pytest.raises(CardError, match=r"^methods/folder\.toml: cannot be read: Is a directory$"):
        cards.load("methods", "folder")


def test_missing_file() -> None:
    with pytest.raises(CardError, match=r"^nowhere/mine\.toml: cannot be read: No such file or directory$"):
        cards.load_file("methods", "nowhere/mine.toml")


def test_unknown_names(root: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown method 'mime': did you mean 'mine'\?$"):
        cards.method("mime")
    with pytest.raises(UnknownNameError, match=r"^unknown kind of card 'method': did you mean 'methods'\?$"):
        cards.load("method", "mine")
    with pytest.raises(UnknownNameError, match=r"^unknown method '\.\./tasks/valley'"):
        cards.load("methods", "../tasks/valley")
    (root / "studies" / "small.toml").unlink()
    with pytest.raises(UnknownNameError, match=r"^unknown study 'small': there are none$"):
        cards.study("small")


def test_load_all_lists_every_bad_card(root: Path) -> None:
    (root / "methods" / "a.toml").write_text("x = 1\n", encoding="utf-8")
    (root / "methods" / "b.toml").write_text("=\n", encoding="utf-8")
    with pytest.raises(CardError) as caught:
        cards.load_all("methods")
    files = {line.partition(":")[0] for line in str(caught.value).splitlines()}
    assert files == {"methods/a.toml", "methods/b.toml"}


def test_build_names_its_source() -> None:
    with pytest.raises(CardError, match=r"^mypkg\.opt:Mine: title: missing key: how tables and axes call it"):
        cards.build("methods", {"name": "mine"}, "mypkg.opt:Mine")
