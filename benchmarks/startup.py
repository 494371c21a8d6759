"""How long `import image_similarity` and `image_similarity --help` take, beside a bare Python: startup.py [--json OUT]

The commands take turns, so that a busy moment of the machine falls on all of them. Every figure is a median.
"""
import argparse
import subprocess
import sys
import time

import numpy as np
from _report import interval, report, row

BARE = [sys.executable, "-c", "pass"]
IMPORT = [sys.executable, "-c", "import image_similarity"]
HELP = [sys.executable, "-c", "from image_similarity.cli.commands import main; main()", "--help"]


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="one turn: the figures mean nothing")
    args = parser.parse_args()

    times = measure({"bare": BARE, "import": IMPORT, "help": HELP}, 1 if args.small else args.repeats)
    rows = [row("python_seconds", *interval(times["bare"]), better="lower"),
            row("import_seconds", *interval(times["import"]), goal=0.3, better="lower"),
            row("import_seconds_added", *interval(times["import"] - times["bare"]), better="lower", against="python -c pass"),
            row("help_seconds", *interval(times["help"]), goal=1.0, better="lower"),
            row("help_seconds_added", *interval(times["help"] - times["bare"]), better="lower", against="python -c pass")]
    report(rows, args.json)


if __name__ == "__main__":
    main()
