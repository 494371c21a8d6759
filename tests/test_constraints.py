"The versions to install exactly: made by a command, and of a form that pip takes."
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def named(name): return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_pinned_is_what_is_asked_for(tmp_path):
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"): continue
        requirement = Requirement(line)
        (only,) = requirement.specifier
        assert only.operator == "==" and "*" not in only.version and "+" not in only.version and not requirement.url and requirement.name == named(requirement.name), line
        pinned[requirement.name] = only.version
    config = ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    asked = [Requirement(r) for key, value in config["DEFAULT"].items() if key.endswith("requirements") and key not in ("dev_requirements", "cluster_requirements") for r in value.split()]
    assert {named(r.name) for r in asked} <= set(pinned)
    for r in asked: assert r.specifier.contains(pinned[named(r.name)], prereleases=True), r
    done = subprocess.run([sys.executable, str(ROOT / ".ci" / "constraints.py"), str(tmp_path / "made.txt")], capture_output=True, text=True)
    assert done.returncode == 0 and {line.split("==")[0] for line in (tmp_path / "made.txt").read_text().splitlines() if "==" in line} >= {named(r.name) for r in asked}, done.stderr


def test_versions_with_known_holes_are_not_admitted():
    config = ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    asked = {named(r.name): r.specifier for key, value in config["DEFAULT"].items() if key.endswith("requirements") for r in map(Requirement, value.split())}
    for name, hole, mended in (("starlette", "0.49.0", "0.49.1"), ("filelock", "3.20.0", "3.20.1")):
        assert not asked[name].contains(hole) and asked[name].contains(mended), name
