#!/usr/bin/env bash
# Lint, types and tests. Arguments go to pytest: scripts/test.sh tests/losses -k crf
#
# Without arguments all tests run, in two halves at once: what computes, at low priority, beside the servers and browsers,
# which mostly wait.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

ruff check .
ruff format --check .
mypy lib apps scripts benchmarks
(($# == 0)) || exec python -m pytest "$@"

waiting=(tests/scripts tests/server tests/trainers tests/viewer)
computing=()
for tests in tests/*/ tests/test_*.py; do
    [[ " ${waiting[*]} " == *" ${tests%/} "* || $tests == */__pycache__/ ]] || computing+=("${tests%/}")
done

log=$(mktemp)
nice -n 19 python -m pytest "${computing[@]}" >"$log" 2>&1 &
trap 'kill "$!" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
python -m pytest "${waiting[@]}" || status=$?
wait "$!" || status=$?
cat "$log"
exit "$status"
