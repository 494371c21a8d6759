"The processor that turns the comments of parameters into docstrings while nbdev exports."
import ast
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
from docments_to_docstrings import explain_parameters, with_docstrings

import image_similarity

PACKAGE = Path(image_similarity.__file__).parent


def test_parameters_and_result_are_explained_once():
    assert with_docstrings('''def double(
    x: float, # what to double,
              # in metres
    times: int = 2, *, loud: bool = False, # how often; whether to say so
) -> float:   # twice as much
    "Twice `x`."
    return times * x''') == '''def double(x: float, times: int = 2, *, loud: bool = False) -> float:
    """Twice `x`.

    Args:
        x: what to double, in metres
        times, loud: how often; whether to say so
    Returns: twice as much"""
    return times * x'''


def test_a_result_alone_is_the_docstring():
    assert with_docstrings("class A:\n    @property\n    def n(self) -> int: # how many\n        return 1") == \
        'class A:\n    @property\n    def n(self) -> int:\n        """How many."""\n        return 1'


def test_a_result_without_a_type_is_explained_too():
    assert with_docstrings("def f(\n    x, # number\n): # figure\n    return x") == 'def f(x):\n    """Args:\n        x: number\n    Returns: figure"""\n    return x'


def test_a_body_on_the_last_line_of_the_signature_stays():
    assert with_docstrings("def f(\n    x, # number\n): return x") == 'def f(x):\n    """Args:\n        x: number"""\n    return x'


def test_fields_of_a_dataclass_are_explained_and_keep_their_comments():
    found = with_docstrings('@dataclass\nclass Point:\n    "A place."\n    x: int # metres\n    _y: int = 0 # hidden')
    assert found == '@dataclass\nclass Point:\n    """A place.\n\n    Args:\n        x: metres"""\n    x: int # metres\n    _y: int = 0 # hidden'


@pytest.mark.parametrize("source", [
    "def _hidden(\n    x, # number\n): return x", '@app.command()\ndef run(\n    x, # number\n):\n    "Run."', "def f(x): return x # number",
    '@router.get("/")\nasync def get(\n    x, # number\n):\n    "Get."', "x = 3 # three", "%matplotlib inline"])
def test_what_is_private_or_read_by_others_stays(source):
    assert with_docstrings(source) == source


def test_long_signatures_are_wrapped_and_mean_the_same():
    parameters = "".join(f"    parameter_{i}: dict[str, int] | None = None, # number {i}\n" for i in range(12))
    source = f"def f(\n{parameters}) -> None:\n    'It.'"
    found = with_docstrings(source)
    assert max(map(len, found.splitlines())) <= 160
    assert ast.dump(ast.parse(source).body[0].args) == ast.dump(ast.parse(found).body[0].args)


def test_only_cells_that_are_exported_are_changed():
    cell = SimpleNamespace(cell_type="code", directives_={}, source="def f(\n    x, # number\n): return x")
    explain_parameters(cell)
    assert "Args" not in cell.source
    cell.directives_["export"] = []
    explain_parameters(cell)
    assert "Args" in cell.source


def test_help_explains_every_parameter_of_every_public_name():
    def unexplained(function):
        names = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        return [name for name in names if name not in (inspect.getdoc(function) or "")]

    found = {}
    for name in image_similarity.__all__:
        value = getattr(image_similarity, name)
        parts = {f"{name}.{key}": getattr(value, key) for key in vars(value) if not key.startswith("_")} if inspect.isclass(value) else {name: value}
        found.update({key: missing for key, part in parts.items() if inspect.isfunction(part) or inspect.ismethod(part) if (missing := unexplained(part))})
    assert found == {}
