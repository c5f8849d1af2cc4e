#!/usr/bin/env bash
# Measures the app on this machine's GPU, in at most ten minutes and without a network; writes docs/results/gpu.md.
# The packages are those of .venv. With WHEELS=folder they are those of PYTHON (default: python3) and the wheels in the
# folder, which come first: all of `pip wheel -r requirements.txt -w folder`, or what that Python lacks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
if [[ -n ${WHEELS:-} ]]; then
    python=${PYTHON:-python3}
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    "$python" -m pip install --quiet --no-input --disable-pip-version-check \
        --no-index --no-deps --target "$packages" "$WHEELS"/*.whl
    export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
fi
"$python" -m benchmarks.gpu_check --out docs/results/gpu.md "$@"
