"""benchmarks/_report.py: when a goal is met."""
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
