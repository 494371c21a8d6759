"""Check that the modules are what the notebooks export, and that the notebooks are clean.

Exports and cleans a copy of the project and compares it with the original, byte for byte, so that it says the same in a
fresh clone and in the middle of somebody's work, and changes nothing in either. A file that would be new is a difference
as well, and so is a module that no notebook exports.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ["settings.ini", "pyproject.toml", "nbs", "image_similarity"]
NOT_SOURCE = ["__pycache__", ".ipynb_checkpoints", ".*", "_*_cache", "sidebar.yml", "*.nbi", "*.nbc"]


def copy_project(root: Path, to: Path):
    "Copy what nbdev reads and writes."
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns(*NOT_SOURCE))
        elif source.exists():
            shutil.copy(source, to / name)


def contents(root: Path) -> dict:
    "Every file below `root`, by its relative path."
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def export_and_clean(root: Path):
    "Write the modules anew from the notebooks, then clean the notebooks."
    for module in (root / "image_similarity").rglob("*.py"):
        if module.name not in ("__init__.py", "__main__.py"):
            module.unlink()
    environment = {k: v for k, v in os.environ.items() if k != "IN_TEST"}  # nbdev-export does nothing under nbdev-test
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for command in ("nbdev-export", "nbdev-clean"):
        subprocess.run([command], cwd=root, env=environment, check=True, capture_output=True, text=True)


def differences(root: Path = ROOT) -> list[str]:
    "The files that exporting and cleaning would change, add or remove, with what would happen to each."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        copy_project(root, copy)
        before = contents(copy)
        export_and_clean(copy)
        after = contents(copy)
    found = [f"{name}: no notebook exports it" for name in before if name not in after]
    found += [f"{name}: missing, a notebook exports it" for name in after if name not in before]
    found += [f"{name}: differs from what nbdev would write" for name in before
              if name in after and before[name] != after[name]]
    return sorted(found)


def main():
    try:
        found = differences()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} failed:\n{error.stderr}")
    if found:
        sys.exit("\n".join(["The notebooks and what is exported from them disagree:", *(f"  {line}" for line in found),
                            "Edit the notebook, not the module; then run: make export"]))
    print("The modules are what the notebooks export, and the notebooks are clean.")


if __name__ == "__main__":
    main()
