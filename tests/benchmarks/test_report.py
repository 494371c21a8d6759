"""benchmarks/_report.py: when a goal is met."""
import json

import pytest


@pytest.fixture(scope="module")
def script(benchmark_script): return benchmark_script("_report")


@pytest.mark.parametrize("low, high, better, by_interval, expected", [
    (-.01, .05, "higher", False, True), (-.01, .05, "higher", True, False), (.001, .05, "higher", True, True), (0, .05, "higher", True, False),
    (-.01, .05, "lower", False, False), (-.09, -.01, "lower", True, True), (-.09, .01, "lower", True, False)])
def test_a_goal_by_interval_wants_all_of_the_interval_beyond_it(script, low, high, better, by_interval, expected, capsys):
    row = script.row("difference", (low + high) / 2, low, high, 0, better, by_interval=by_interval)
    assert script.met(row) == expected
    script.report([row])
    assert ("met" if expected else "missed") in capsys.readouterr().out


def test_a_goal_by_interval_without_an_interval_is_refused(script):
    with pytest.raises(ValueError, match="by_interval"): script.row("difference", .1, goal=0, by_interval=True)
    with pytest.raises(ValueError, match="by_interval"): script.row("difference", .1, 0, .2, by_interval=True)


def test_rows_of_earlier_runs_are_judged_by_their_value(script):
    row = script.row("share", .8, .7, .9, goal=.8)
    assert "by_interval" not in row and script.met(row)


# --- processors

def on(script, monkeypatch, cpu, rows, path):
    monkeypatch.setattr(script, "_cpu_name", lambda: cpu)
    return script.report(rows, path)


def test_each_kind_of_processor_keeps_its_figures(script, monkeypatch, tmp_path):
    path, of = tmp_path / "f.json", lambda value, name="ratio": script.row(name, value, goal=1, against="that")
    on(script, monkeypatch, "one", [of(1), of(5, "other")], path)
    assert set(json.loads(path.read_text())) == {"machine", "rows"}
    on(script, monkeypatch, "two", [of(2)], path)
    on(script, monkeypatch, "three", [of(3)], path)
    monkeypatch.setattr(script, "_cpu_name", lambda: "one")
    script.report([of(4), *script.measured_before(path, {"ratio"})], path) # the other figure is of an earlier run here
    found = {run["machine"]["cpu"]: {row["name"]: row["value"] for row in run["rows"]} for run in script.kept(path)}
    assert found == {"one": {"ratio": 4, "other": 5}, "two": {"ratio": 2}, "three": {"ratio": 3}}
    assert json.loads(path.read_text())["machine"]["cpu"] == "one" # the last run
    monkeypatch.setattr(script, "_cpu_name", lambda: "four")
    assert script.kept_here(path) == script.measured_before(path, set()) == [] and script.kept(tmp_path / "none.json") == []


def test_what_has_fallen_by_a_tenth_on_this_kind_of_processor_is_named(script, monkeypatch, tmp_path):
    path = tmp_path / "f.json"
    def rows(speed, cost, seconds=1., unasked=1.):
        return [script.row("speed", speed, goal=.5, against="that"), script.row("cost", cost, goal=9, better="lower", against="that"),
                script.row("took", seconds, goal=9, better="lower"), script.row("unasked", unasked, against="that")]
    on(script, monkeypatch, "slow one", rows(.1, 8), path)
    on(script, monkeypatch, "one", rows(2, 1), path)
    assert script.fallen(rows(1.81, 1.1), path) == script.fallen(rows(3, .5, seconds=5, unasked=.1), path) == [] # a time is no ratio
    assert script.fallen(rows(1.79, 1.1), path) == ["speed: 1.79, and was 2"]
    assert script.fallen(rows(2, 1.12), path) == ["cost: 1.12, and was 1"]
    on(script, monkeypatch, "another", rows(2, 1), None)
    assert script.fallen(rows(.01, 99), path) == [] # nothing is kept for it
