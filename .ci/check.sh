#!/usr/bin/env bash
# What `make check` runs, in a minute and a half at most, while somebody works: what is cheap to know, and the tests that are near.
# The types are looked at on one core while the tests of the changed rooms run on the other.
# SINCE=branch compares with another one than main; ROOMS="gallery finder" chooses rooms by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
export MPLBACKEND=Agg PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
LIMIT=85 # seconds from the start, after which no test is begun

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

changed() {  # files that differ from where this branch left main, committed or not
    local since=${SINCE:-}
    for candidate in main origin/main; do
        if [ -z "$since" ] && git rev-parse -q --verify "$candidate" >/dev/null; then since=$candidate; fi
    done
    git diff --name-only "$(git merge-base HEAD "${since:-HEAD}")"
    git ls-files --others --exclude-standard
}

rooms() {  # nbs/09_gallery/10_gallery.ipynb, image_similarity/gallery/gallery.py and tests/gallery/test_gallery.py are all of the gallery
    changed | sed -nE 's#^(nbs/[0-9]+_|image_similarity/|tests/)([a-z]+)/.*#\2#p' | sort -u
}

types() { if [ -f .ci/check_types.py ]; then python .ci/check_types.py; else basedpyright; fi; }

log=$(mktemp) && trap 'rm -f "$log"' EXIT
types >"$log" 2>&1 & types=$!
failed=()

step "The notebooks and the modules agree"
python .ci/check_notebooks.py || failed+=("notebooks and modules")

step "The pages agree with what they are made from"
python .ci/render_readme.py --check || failed+=("pages")

step "Lint"
ruff check || failed+=("lint")

tests=()
for room in ${ROOMS-$(rooms)}; do
    if [ -d "tests/$room" ]; then tests+=("tests/$room"); fi
done
if [ ${#tests[@]} -gt 0 ]; then
    step "The tests of what changed: ${tests[*]#tests/}"
    python -m pytest -q -x -m "not soak and not long" --at-most $((LIMIT - SECONDS)) "${tests[@]}" || failed+=("tests")
fi

step "Types"
wait "$types" || failed+=("types")
cat "$log"

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nWrong (%s s): ' "$SECONDS" >&2
    printf '%s. ' "${failed[@]}" >&2
    echo >&2
    exit 1
fi
printf '\nNothing is wrong so far (%s s); `make test` looks at all of it.\n' "$SECONDS"
