"""Measure speed again, and say what has fallen: check_figures.py [gallery|startup|service|seed_loop ...]

A ratio with a goal that is below 0.9 of what benchmarks/results/ keeps for this kind of processor is an error. Nothing is written there. The figures kept
are about photographs, so it wants ../shared/data; and they are kept by processor, so that on another kind there is nothing to compare with before `make benchmark`.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from _data import PHOTOS
from _report import fallen, kept_here, machine

RUNS = {"gallery": [["_pair_scan.py", "--queries", "50"], ["gallery.py", "--only", "runtimes"]], "startup": [["startup.py"]], "service": [["service.py", "--only", "load"]],
        "seed_loop": [["seed_loop.py"]]}


def measured(script: str, options: list[str]) -> list[dict]:
    "The rows that a script in benchmarks/ writes."
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(BENCHMARKS / script), *options, "--json", f"{folder}/found.json"], check=True)
        return json.loads(Path(folder, "found.json").read_text(encoding="utf-8"))["rows"]


def main(names: list[str]) -> None:
    if unknown := [name for name in names if name not in RUNS]: sys.exit(f"check_figures.py: {unknown[0]} is not one of {', '.join(RUNS)}")
    if not PHOTOS.is_dir(): return print(f"No figures are compared: {PHOTOS} is not there.")
    lines = []
    for name in names or RUNS:
        file = BENCHMARKS / "results" / f"{name}.json"
        if not kept_here(file):
            print(f"{file.name} keeps nothing for {machine()['cpu']}: python benchmarks/{name}.py --json {file.relative_to(ROOT)}")
            continue
        for script, *options in RUNS[name]: lines += fallen(measured(script, options), file)
    if lines: sys.exit("Slower than it was on this kind of processor, by more than a tenth:\n  " + "\n  ".join(lines))
    print("As fast as it was.")


if __name__ == "__main__":
    main(sys.argv[1:])
