#!/usr/bin/env bash
# What `make soak` runs: is everything as true on another processor? And the tests that are too slow for `make test`.
#
# Results of two processors differ in the last bits, and what hangs on those is green here and red there. So all that computes
# with networks, tests and notebooks, runs again as two other machines would run it, with a random error of 2e-6 on every number
# that any encoder gives (.ci/soak/sitecustomize.py). Each library is told apart from the others by a variable of its own: torch,
# MKL and oneDNN in torch, oneDNN in OpenVINO, OpenBLAS in numpy and scipy, numpy, FAISS, numba. One machine knows none of the
# extensions of the last fifteen years, the other those up to AVX2: most people's. Each variable alone would be a dozen runs; a test that hangs on
# the last bits is found by any of them, and these two change all of them at once, twice. AVX-512 is left to the machines that have it.
#
# Not run again: what only reads, draws, packs or shows (images, drawing, the page, bad requests, the architecture), which computes with no network.
# The tests run on the first of the two machines and the notebooks on the second, so that all is looked at once in the time there is;
# ALL=1 runs both on both.
#
# `long` is what `make test` leaves out because it takes its time, as this machine runs it, in fifteen minutes or so; CI runs it each time (.ci/run).
#
# `speed` measures the ratios that have a goal, and fails when one has fallen by a tenth on this kind of processor (.ci/check_figures.py); it wants the machine to itself.
#
# .ci/soak.sh [old|avx2|slow|speed|long]...   ALL=1   SOAK_SEED=7 for other errors   TESTS="tests/matching" NOTEBOOKS="nbs/11_matching" for a part   WORKERS=1 for one core
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
export MPLBACKEND=Agg PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
TESTS=${TESTS-tests/encoders tests/scoring tests/learners tests/explain tests/groups tests/gallery tests/finder tests/matching tests/products tests/metrics tests/service/test_service.py tests/cli tests/test_bad_input.py}
NOTEBOOKS=${NOTEBOOKS-nbs/0[4-9]_* nbs/1[0-4]_* nbs/tutorials}
WORKERS=${WORKERS:-3}
export WORKERS
failed=()

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

numpy_extensions() {  # those that numpy would use here beyond the first $1: it refuses names that it does not know
    python -c "from numpy._core import _multiarray_umath as m; print(*[name for name in m.__cpu_dispatch__ if m.__cpu_features__.get(name)][$1:])"
}

again() {  # NAME VARIABLE=VALUE...: tests and notebooks with these variables, and with errors
    local name=$1; shift
    local -x PYTHONPATH="$PWD/.ci/soak${PYTHONPATH:+:$PYTHONPATH}"
    if [ -n "$TESTS" ]; then
        step "The tests, on a processor $name"
        env "$@" python -m pytest -q -n "$WORKERS" --dist worksteal -m "not soak" $TESTS || failed+=("the tests, on a processor $name")
    fi
    if [ -n "$NOTEBOOKS" ]; then
        step "The notebooks, on a processor $name"
        env "$@" python .ci/run_notebooks.py $NOTEBOOKS || failed+=("the notebooks, on a processor $name")
    fi
}

[ $# -gt 0 ] || set -- old avx2 slow speed
for part in "$@"; do case $part in
    old) NOTEBOOKS=${ALL:+$NOTEBOOKS} again "without AVX" ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem \
        NPY_DISABLE_CPU_FEATURES="$(numpy_extensions 0)" FAISS_OPT_LEVEL=generic NUMBA_CPU_NAME=generic SOAK_SEED="${SOAK_SEED:-0}" ;;
    avx2) TESTS=${ALL:+$TESTS} again "with AVX2 and no more" ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell \
        NPY_DISABLE_CPU_FEATURES="$(numpy_extensions 1)" FAISS_OPT_LEVEL=avx2 NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma SOAK_SEED="${SOAK_SEED:-1}" ;;
    slow) step "The tests that take their time"
        python -c "import ray" 2>/dev/null || python -m pip install -qq --disable-pip-version-check --editable ".[cluster]" # too large for the [dev] extra
        python -m pytest -q -n "$WORKERS" --dist worksteal -m "soak or long" --durations=15 tests || failed+=("the tests that take their time") ;;
    speed) step "The figures of speed"
        env -u OMP_NUM_THREADS python .ci/check_figures.py || failed+=("the figures of speed") ;;
    long) step "The notebooks that take long"
        python .ci/run_notebooks.py --long || failed+=("the notebooks that take long")
        step "The tests that take long"
        python -m pytest -q -n "$WORKERS" --dist worksteal -m long --durations=15 tests || failed+=("the tests that take long") ;;
    *) echo "soak.sh: $part is not old, avx2, slow, speed or long" >&2; exit 2 ;;
esac; done

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nRed:\n' >&2
    printf '  %s\n' "${failed[@]}" >&2
    exit 1
fi
printf '\nAll is well (%s s).\n' "$SECONDS"
