#!/usr/bin/env bash
# Make .venv and install this checkout in it, editable: .ci/install.sh [EXTRA]
# Does nothing when that was done already and settings.ini, setup.py and pyproject.toml are as they were then.
# PYTHON=... chooses the interpreter; otherwise the first of the list below that is 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:-}
venv=$PWD/.venv

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3.13 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    local found="there is none on this PATH"
    if [ -n "${PYTHON:-}" ]; then found="$PYTHON is not one"; fi
    echo "image_similarity needs Python 3.11 or newer, and $found. Install it" \
         "(Debian and Ubuntu: apt install python3 python3-venv), or say where it is: make PYTHON=/path/to/python3.11" >&2
    return 1
}

fingerprint() {  # of what the installation depends on, this folder included: an editable install points at it
    { echo "$PWD"; cat settings.ini setup.py pyproject.toml; } | "$venv/bin/python" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version) ($python)"
    if ! "$python" -m venv --clear "$venv"; then
        echo "$python cannot make a virtual environment (Debian and Ubuntu: apt install python3-venv)." >&2
        exit 1
    fi
fi

also_with_underscore() {  # nbdev 3 calls its command nbdev-test; the name of before is what many know, and what the workflow calls
    if [ -x "$venv/bin/nbdev-test" ]; then ln -sf nbdev-test "$venv/bin/nbdev_test"; fi
}

now=$(fingerprint)
# The development install holds everything that the plain one does.
for stamp in "$venv/.installed${extra:+-$extra}" "$venv/.installed-dev"; do
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ]; then also_with_underscore; exit 0; fi
done

echo "Installing image_similarity${extra:+[$extra]} into .venv: about 4 minutes the first time, most of it torch"
heartbeat() { while sleep 30; do echo "  still installing, $SECONDS s"; done; }
heartbeat & beating=$!
trap 'kill $beating 2>/dev/null || true' EXIT
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --editable ".${extra:+[$extra]}"
if [ "$extra" = dev ]; then # nbdev-export finds its processor there
    echo "$PWD/.ci" > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/image_similarity_dev.pth"
fi
also_with_underscore
echo "$now" > "$venv/.installed${extra:+-$extra}"
echo "Installed in $SECONDS s"
