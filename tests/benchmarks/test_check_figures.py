""".ci/check_figures.py: what has become slower on this kind of processor is an error."""
import json
import shutil

import check_figures
import pytest

SCRIPT = """
import argparse
from _report import report, row
parser = argparse.ArgumentParser()
parser.add_argument("--json")
parser.add_argument("--speed", type=float)
args = parser.parse_args()
report([row("speed", args.speed, goal=1, against="that")], args.json)
"""


@pytest.fixture
def checked(tmp_path, monkeypatch):
    "Check a script that says how fast it is, against a folder of results."
    (tmp_path / "speed.py").write_text(SCRIPT)
    shutil.copy(check_figures.BENCHMARKS / "_report.py", tmp_path)
    for name, value in {"ROOT": tmp_path, "BENCHMARKS": tmp_path, "PHOTOS": tmp_path}.items(): monkeypatch.setattr(check_figures, name, value)

    def check(speed, kept=None, cpu=None):
        rows = check_figures.measured("speed.py", ["--speed", str(kept)]) if kept else []
        machine = check_figures.machine() | ({"cpu": cpu} if cpu else {})
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / "speed.json").write_text(json.dumps({"machine": machine, "rows": rows}))
        monkeypatch.setattr(check_figures, "RUNS", {"speed": [["speed.py", "--speed", str(speed)]]})
        check_figures.main([])
    return check


def test_a_tenth_less_than_is_kept_for_this_processor_is_an_error(checked, capsys, tmp_path):
    checked(speed=1.9, kept=2)
    assert "As fast as it was." in capsys.readouterr().out
    before = (tmp_path / "results" / "speed.json").read_text()
    with pytest.raises(SystemExit, match=r"(?s)more than a tenth:\n  speed: 1.7, and was 2"): checked(speed=1.7, kept=2)
    assert (tmp_path / "results" / "speed.json").read_text() == before # nothing is written


def test_another_processor_says_nothing_about_this_one(checked, capsys):
    checked(speed=.1, kept=2, cpu="another")
    assert "keeps nothing for" in capsys.readouterr().out


def test_without_photographs_nothing_is_compared(checked, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(check_figures, "PHOTOS", tmp_path / "nowhere")
    checked(speed=.1, kept=2)
    assert "No figures are compared" in capsys.readouterr().out


def test_an_unknown_script_is_said_and_the_known_ones_are_there():
    with pytest.raises(SystemExit, match="speeed is not one of gallery"): check_figures.main(["speeed"])
    for runs in check_figures.RUNS.values():
        for script, *_ in runs: assert (check_figures.BENCHMARKS / script).exists()
