#!/usr/bin/env bash
# What `make test` runs once everything is installed. Stops at the first thing that is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
export MPLBACKEND=Agg PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
files() { git ls-files --cached --others --exclude-standard 2>/dev/null | sort -u || true; }

before=$(files)

# The types are looked at beside all that needs one core only: the two checks, and the end of the notebooks.
types=$(mktemp)
trap 'rm -f "$types"' EXIT
python .ci/check_types.py >"$types" 2>&1 & looking=$!

# Once, and not in each of the hundred processes that tests and notebooks start.
python -m compileall -q image_similarity

step "The notebooks and the modules agree"
python .ci/check_notebooks.py

step "The pages agree with what they are made from"
python .ci/render_readme.py --check

step "Lint"
ruff check

step "The notebooks run"
# Without those that take long: `.ci/soak.sh long` runs them, and what is marked `long` among the tests.
python .ci/run_notebooks.py --not-long

step "The types of the package, the README and the tutorials are right"
wait "$looking" || { cat "$types"; exit 1; }
cat "$types"

step "The tests pass"
# Three at a time on two cores, since a fifth of the time is waiting for a server, a browser or a disk;
# who is done first takes from the others, so that no core waits for a long file at the end.
python -m pytest -q -n 3 --dist worksteal -m "not soak and not long" --durations=15 tests

step "Nothing is left lying about"
new=$(comm -13 <(echo "$before") <(files))
if [ -n "$new" ]; then
    printf 'These files were not there before; the notebook or test that writes them should use a temporary folder:\n%s\n' "$new" >&2
    exit 1
fi

printf '\nAll is well (%s s).\n' "$SECONDS"
