"pip refuses a Python that is too old, and says why."
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "A wheel of the package's description; its modules are left out, since pip looks at nothing else."
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"): shutil.copy(ROOT / name, source)
    (source / "image_similarity").mkdir()
    shutil.copy(ROOT / "image_similarity" / "__init__.py", source / "image_similarity")
    code = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(built)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(built.glob("*.whl"))


@pytest.mark.parametrize("version, fits", [("3.8", False), ("3.10", False), ("3.11", True), ("3.13", True)])
def test_pip_takes_the_pythons_that_we_support_and_no_other(wheel, version, fits, tmp_path):
    # `pip install --python-version` compares with the Python at hand; `pip download` with the one that is named.
    command = [sys.executable, "-m", "pip", "download", "--isolated", "--no-deps", "--no-index", "--only-binary=:all:", "--python-version", version, "--dest", str(tmp_path), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    assert (done.returncode == 0) == fits, done.stderr
    if not fits: assert f"requires a different Python: {version}" in done.stderr and "not in '>=3.11'" in done.stderr
