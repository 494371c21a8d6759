#!/usr/bin/env bash
# What `make test` runs once everything is installed. Stops at the first thing that is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
export MPLBACKEND=Agg PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
files() { git ls-files --cached --others --exclude-standard 2>/dev/null | sort -u || true; }

before=$(files)

step "The notebooks and the modules agree"
python .ci/check_notebooks.py

step "The pages agree with what they are made from"
python .ci/render_readme.py --check

step "Lint, and the types of the package, the README and the tutorials"
ruff check
python .ci/check_types.py

step "The notebooks run"
# Without the tutorials that train for long: `make soak` runs those, twice.
python .ci/run_notebooks.py --not-long

step "The tests pass"
# Two at a time, each on one core; who is done first takes from the other, so that no core waits for a long file at the end.
python -m pytest -q -n 2 --dist worksteal -m "not soak" --durations=15 tests

step "Nothing is left lying about"
new=$(comm -13 <(echo "$before") <(files))
if [ -n "$new" ]; then
    printf 'These files were not there before; the notebook or test that writes them should use a temporary folder:\n%s\n' "$new" >&2
    exit 1
fi

printf '\nAll is well (%s s).\n' "$SECONDS"
