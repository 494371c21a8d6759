"""Builds the package from what settings.ini says: name, version, requirements. What nbdev wants to know is in pyproject.toml."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser()
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

STATUS = {"1": "Planning", "2": "Pre-Alpha", "3": "Alpha", "4": "Beta", "5": "Production/Stable", "6": "Mature"}
LICENSES = {"apache2": "Apache-2.0", "mit": "MIT", "bsd3": "BSD-3-Clause"}
PYTHONS = ["3.11", "3.12", "3.13"]  # the ones that the workflow tests


def as_tuple(version): return tuple(int(part) for part in version.split("."))


def extras():
    "Every key `NAME_requirements` is the extra `NAME`; `dev` holds all the others as well, since the tests use them; but for `cluster`, which is large."
    suffix = "_requirements"
    named = {key.removesuffix(suffix): cfg[key].split() for key in cfg if key.endswith(suffix)}
    return {**named, "dev": sorted({requirement for name, some in named.items() if name != "cluster" for requirement in some})}


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    license=LICENSES[cfg["license"]],
    classifiers=[
        f"Development Status :: {cfg['status']} - {STATUS[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        *(f"Programming Language :: Python :: {p}" for p in PYTHONS if as_tuple(p) >= as_tuple(cfg["min_python"])),
    ],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[cfg["lib_name"], f"{cfg['lib_name']}.*"]),
    package_data={cfg["lib_name"]: cfg.get("package_data", "").split()},
    install_requires=cfg["requirements"].split(),
    extras_require=extras(),
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],  # lets other nbdev projects link to these docs
    },
    zip_safe=False,
)
