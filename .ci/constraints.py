"""Write constraints.txt: the versions that this environment has of everything that the package and its extras want, and of what those want in turn.

    .venv/bin/python .ci/constraints.py [FILE]

Run it where `make test` was green. `pip install -c constraints.txt 'image_similarity[serve]'` then installs exactly that.
"""
import re
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def named(name: str) -> str:
    "As PyPI compares names."
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted() -> list[Requirement]:
    "What settings.ini asks for, extras included; tools of development aside, and Ray, which is not installed for the tests."
    config = ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    cfg = config["DEFAULT"]
    return [Requirement(r) for key in cfg if key.endswith("requirements") and key not in ("dev_requirements", "cluster_requirements") for r in cfg[key].split()]


def versions() -> dict[str, str]:
    "Name to version, of all that is needed here."
    found, left = {}, [(r, frozenset(r.extras)) for r in wanted()]
    seen = set()
    while left:
        requirement, extras = left.pop()
        if (named(requirement.name), extras) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})): continue
        seen.add((named(requirement.name), extras))
        try: package = distribution(requirement.name)
        except PackageNotFoundError: continue # for another system
        found[named(requirement.name)] = package.version.split("+")[0] # what follows is how it was built
        for text in package.requires or []:
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                inner.marker = None
                left.append((inner, frozenset(inner.extras)))
    return found


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "constraints.txt"
    lines = ["# The versions that the tests were green with, made by `make constraints`: pip install -c constraints.txt image_similarity",
             f"# Python {sys.version_info.major}.{sys.version_info.minor}, {sys.platform}", *(f"{name}=={version}" for name, version in sorted(versions().items()))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines) - 2} versions in {file.name}")
