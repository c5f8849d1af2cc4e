#!/usr/bin/env bash
# Lint, types and tests. Arguments go to pytest: scripts/test.sh tests/losses -k crf
#
# Without arguments all tests run, on two cores: those of the servers, which mostly wait, beside those that compute, at low
# priority, and then those of the browsers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

ruff check .
ruff format --check .
mypy lib apps scripts benchmarks
(($# == 0)) || exec python -m pytest "$@"

servers=(tests/scripts tests/server tests/trainers)
browsers=(tests/viewer)
computing=()
for tests in tests/*/ tests/test_*.py; do
    [[ " ${servers[*]} ${browsers[*]} " == *" ${tests%/} "* || $tests == */__pycache__/ ]] || computing+=("${tests%/}")
done

beside() {
    local status=0
    nice -n 19 python -m pytest "${computing[@]}" || status=$?
    python -m pytest "${browsers[@]}" || status=$?
    return "$status"
}

log=$(mktemp)
beside >"$log" 2>&1 &
trap 'kill "$!" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
python -m pytest "${servers[@]}" || status=$?
wait "$!" || status=$?
cat "$log"
exit "$status"
