"""The development environment: settings that stand in one place, and the commands that the docs and the workflow name."""
import configparser
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def settings():
    "The keys of settings.ini, and those of [tool.nbdev]."
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    return set(ini["DEFAULT"]), set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["nbdev"])


def test_no_setting_stands_in_two_places():
    ini, nbdev = settings()
    assert {"version", "requirements"} <= ini and "tst_flags" in nbdev
    assert ini & nbdev == set()


@pytest.mark.skipif(importlib.util.find_spec("nbdev") is None, reason="nbdev is not installed")
def test_notebooks_are_run_by_the_name_that_everybody_knows(tmp_path, command="nbdev_test"):
    "That of nbdev 2; nbdev 3 calls it nbdev-test."
    assert (BIN / command).exists(), "run: make dev"
    done = subprocess.run([BIN / command, "nbs/01_images/01_errors.ipynb", "--n-workers", "0"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    broken = tmp_path / "broken.ipynb"
    broken.write_text((ROOT / "nbs/01_images/01_errors.ipynb").read_text(encoding="utf-8").replace("#| export", "raise ValueError", 1), encoding="utf-8")
    assert subprocess.run([BIN / command, broken, "--n-workers", "0"], cwd=ROOT, capture_output=True).returncode != 0


def test_the_workflow_runs_the_notebooks_in_a_step_of_its_own():
    yaml = pytest.importorskip("yaml")
    steps = [step for job in yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"].values() for step in job["steps"]]
    assert [step["name"] for step in steps if "nbdev_test" in step.get("run", "")] == ["nbdev_test"]
