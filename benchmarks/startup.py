"""How long `import image_similarity`, `--help` and `find` take from a shell: startup.py [--json OUT]

The first two stand beside a bare Python. `find PICTURE --gallery G`, over a small gallery, from the second search on, stands beside a Python that imports torch and timm.

The commands take turns, so that a busy moment of the machine falls on all of them. Every figure is a median.
"""
import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _report import interval, report, row

BARE = [sys.executable, "-c", "pass"]
IMPORT = [sys.executable, "-c", "import image_similarity"]
TORCH = [sys.executable, "-c", "import torch, timm"]
MAIN = [sys.executable, "-c", "from image_similarity.cli.commands import main; main()"]
HELP = [*MAIN, "--help"]


def seconds(command: list[str]) -> float:
    "The wall time of one run."
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(commands: dict, repeats: int) -> dict:
    "`repeats` times for each command, in turns, after one round that warms the disk cache."
    for command in commands.values():
        seconds(command)
    times = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            times[name].append(seconds(command))
    return {name: np.array(found) for name, found in times.items()}


def small_gallery(folder: Path) -> list[str]:
    "The command that searches a small gallery; the first search of it has been made."
    from image_similarity.drawing.pets import sample_pets
    from image_similarity.images.listing import image_files
    images = sample_pets(folder / "pets", n_breeds=4, n_per_breed=8) / "images"
    subprocess.run([*MAIN, "index", str(images), "--gallery", str(folder / "gallery"), "--quiet"], check=True)
    return [*MAIN, "find", str(image_files(images)[0]), "--gallery", str(folder / "gallery")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="one turn: the figures mean nothing")
    args = parser.parse_args()

    n = 1 if args.small else args.repeats
    times = measure({"bare": BARE, "import": IMPORT, "help": HELP}, n)
    with tempfile.TemporaryDirectory() as folder:
        cold = measure({"torch": TORCH, "find": small_gallery(Path(folder))}, -(-n // 3))  # the warming round is the first search
    rows = [row("python_seconds", *interval(times["bare"]), better="lower"),
            row("import_seconds", *interval(times["import"]), goal=0.3, better="lower"),
            row("import_seconds_added", *interval(times["import"] - times["bare"]), better="lower", against="python -c pass"),
            row("help_seconds", *interval(times["help"]), goal=1.0, better="lower"),
            row("help_seconds_added", *interval(times["help"] - times["bare"]), better="lower", against="python -c pass"),
            row("cold_find_ratio", *interval(cold["find"] / cold["torch"]), goal=0.5, better="lower", against="python -c 'import torch, timm'; a gallery of 32 pictures, the second search and later"),
            row("cold_find_seconds", *interval(cold["find"]), better="lower")]
    report(rows, args.json)


if __name__ == "__main__":
    main()
