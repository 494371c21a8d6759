"""Importing says nothing, and hides nothing that somebody's own program is warned of."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

import image_similarity

PACKAGE = Path(image_similarity.__file__).parent


def said(code: str) -> str:
    "What a Python of its own that shows every warning says to stderr."
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_every_public_name_is_imported_without_a_word_and_draws_no_random_number():
    # Of Python's state nothing is said: the HTTP libraries draw from it as they are imported.
    assert said("import numpy, torch, image_similarity\n"
                "def now(): return numpy.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()\n"
                "before = now()\nfor name in image_similarity.__all__: getattr(image_similarity, name)\nassert now() == before") == ""


@pytest.mark.soak
def test_warnings_that_a_program_causes_itself_are_still_shown():
    own = "import image_similarity, torch, warnings\nimage_similarity.SiameseImage\n"
    found = said(own + "torch.jit.script(torch.nn.Identity())\nwarnings.warn('mine', FutureWarning)\nimport pandas\npandas.set_option('mode.chained_assignment', 'raise')")
    assert "torch.jit.script" in found and "mine" in found


def imports_of(file: Path) -> list[str]:
    "What a module imports at its top level, in order."
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import): found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom): found += [f"{node.module or ''}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("file", [file for file in PACKAGE.rglob("*.py") if any(name.startswith("fastai.") for name in imports_of(file))],
                         ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_whoever_imports_fastai_imports_it_quietly(file):
    names = imports_of(file)
    first = next(n for n, name in enumerate(names) if name.startswith("fastai."))
    assert file.stem == "fastai_import" or any(name.endswith(".fastai_import") for name in names[:first])
