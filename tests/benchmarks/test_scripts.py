"""Every script of benchmarks/ runs alone, with pictures of its own and with those of a folder, as small as it can be."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
READS = {"attacks": None, "classes": "", "data_quality": "", "duplicates": "", "feedback": "", "gallery": "", "many_machines": "", "open_world": "", "page": None, "pairs": "", "pets": "pets", "pictures": "", "precision": "", "ranking": "", "seed_loop": "pets", "service": "", "startup": None, "text": ""} # a part of the data; None: nothing
RUNS = [(name, [], part) for name, part in READS.items() if name != "gallery"] + [
    ("gallery", ["--only", group], "") for group in ("pairs", "runtimes", "gallery")] + [("_pair_scan", ["--items", "500", "--queries", "10", "--repeats", "1"], "")]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, benchmark_script):
    "A folder like ../shared/data, for --data."
    return benchmark_script("_data").drawn_data(tmp_path_factory.mktemp("data") / "drawn")


def test_every_script_is_run_here():
    assert {file.stem for file in BENCHMARKS.glob("[a-z]*.py")} == set(READS)


@pytest.mark.soak
@pytest.mark.parametrize("with_data", [False, True], ids=["drawn", "data"])
@pytest.mark.parametrize("name, options, part", RUNS, ids=["-".join([name, *options[1:2]]) for name, options, _ in RUNS])
def test_a_script_runs_alone(name, options, part, with_data, drawn, tmp_path, benchmark_script):
    if with_data and part is None: pytest.skip("it reads no pictures")
    if with_data and "runtimes" in options: pytest.skip("it reads what the other parts of gallery.py read, and compiles for a minute")
    (tmp_path / "tmp").mkdir() # nothing of another run lies there
    out, data = tmp_path / "out" / f"{name}.json", ["--data", str(drawn / part)] if with_data else []
    done = subprocess.run([sys.executable, str(BENCHMARKS / f"{name}.py"), "--small", *options, *data, "--json", str(out)],
                          cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path / "tmp")}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found) == {"machine", "rows"} and found["rows"]
    before = benchmark_script("_report").kept(BENCHMARKS / "results" / f"{name.replace('_pair_scan', 'gallery')}.json")
    assert {row["name"] for row in found["rows"]} & {row["name"] for run in before for row in run["rows"]} # the figures that the pages show


@pytest.mark.soak
def test_a_folder_that_is_not_there_is_said(tmp_path):
    done = subprocess.run([sys.executable, str(BENCHMARKS / "pets.py"), "--data", str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert done.returncode == 1 and "there is no such folder" in done.stderr
