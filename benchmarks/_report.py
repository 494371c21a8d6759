"""What every script in benchmarks/ shares: the rows it prints and writes, their intervals, and the machine they come from."""
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.  # of the last minute, before the script began: what else the machine was doing
PACKAGES = ["image_similarity", "torch", "torchvision", "fastai", "timm", "numpy", "numba", "faiss-cpu", "scikit-learn"]


def seconds(work: Callable, *args, **kwargs) -> float:
    "That some work takes, once."
    start = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - start


def _cpu_name() -> str:
    "The processor's name, as the system tells it."
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    "How many cores this process may use, which a container sets below what the machine has."
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine() -> dict:
    "What the figures were measured on."
    return {"cpu": _cpu_name(), "cores": _cores(), "system": f"{platform.system()} {platform.machine()}", "load": round(LOAD, 1),
            "python": platform.python_version(),
            "packages": {package: found for package in PACKAGES if (found := _version(package))}}


def interval(values, statistic=np.median, resamples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    "`statistic` of `values`, and its 95 % bootstrap interval: value, low, high."
    values = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.choice(values, len(values))) for _ in range(resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(statistic(values)), float(low), float(high)


def row(name, value, low=None, high=None, goal=None, better="higher", against=None, by_interval=False) -> dict:
    """One figure. A goal is met by the value, or, `by_interval`, by the whole interval, which has to be beyond it: that a difference is
    above 0 is shown by nothing less."""
    if better not in ("higher", "lower"):
        raise ValueError(f"better={better!r}: say 'higher' or 'lower'")
    if by_interval and (goal is None or low is None or high is None):
        raise ValueError(f"{name}: by_interval=True wants a goal and an interval")
    found = {"name": name, "value": value, "low": low, "high": high, "goal": goal, "better": better, "against": against}
    return {**found, "by_interval": True} if by_interval else found


def interval_row(name, found, goal=None, better="higher", against=None, by_interval=False) -> dict:
    "One figure from an `image_similarity.metrics.intervals.Interval`."
    return row(name, found.value, found.low, found.high, goal, better, against, by_interval)


def met(row: dict) -> bool:
    "Whether a row's goal is reached."
    higher = row["better"] == "higher"
    if row.get("by_interval"):
        return row["low"] > row["goal"] if higher else row["high"] < row["goal"]
    return row["value"] >= row["goal"] if higher else row["value"] <= row["goal"]


def _show(row: dict) -> str:
    "A row as a line of text."
    text = f"{row['name']:<36}{row['value']:>12.4g}"
    if row["low"] is not None:
        text += f"  [{row['low']:.4g}, {row['high']:.4g}]"
    if row["goal"] is not None:
        goal = f"interval {'above' if row['better'] == 'higher' else 'below'} {row['goal']:g}" if row.get("by_interval") else f"{row['goal']:g}"
        text += f"  goal {goal}: {'met' if met(row) else 'missed'}"
    if row["against"]:
        text += f"  (against {row['against']})"
    return text


def kept(path) -> list[dict]:
    "What the JSON file `path` keeps: a machine and its rows for each kind of processor, the last run first."
    if not path or not Path(path).exists(): return []
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return [{"machine": found["machine"], "rows": found["rows"]}, *found.get("elsewhere", [])]


def kept_here(path) -> list[dict]:
    "The rows that a JSON file keeps for this kind of processor."
    return next((run["rows"] for run in kept(path) if run["machine"]["cpu"] == _cpu_name()), [])


def measured_before(path, names: set[str]) -> list[dict]:
    "The rows of an earlier run on this kind of processor, in the JSON file `path`, that are not measured now."
    return [row for row in kept_here(path) if row["name"] not in names]


def report(rows: list[dict], path=None) -> dict:
    "Print `rows`, and write them to the JSON file `path` if one is given; what the file says of other kinds of processors is kept."
    found = {"machine": machine(), "rows": rows}
    print("\n".join(map(_show, rows)))
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        elsewhere = [run for run in kept(path) if run["machine"]["cpu"] != found["machine"]["cpu"]]
        Path(path).write_text(json.dumps(found | ({"elsewhere": elsewhere} if elsewhere else {}), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def fallen(rows: list[dict], path, share: float = 0.9) -> list[str]:
    "What has become worse: ratios with a goal that are below `share` of what the JSON file `path` keeps for this kind of processor, in words."
    before, lines = {row["name"]: row for row in kept_here(path)}, []
    for row in rows:
        if row["goal"] is None or not row["against"] or row["name"] not in before: continue
        value, was = row["value"], before[row["name"]]["value"]
        if value < share * was if row["better"] == "higher" else value > was / share: lines.append(f"{row['name']}: {value:.3g}, and was {was:.3g}")
    return lines
