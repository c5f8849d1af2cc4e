#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    -h | --help)
        cat <<'EOF'
Usage: scripts/test.sh [--all | ARGUMENT...]

Runs lint, types and tests.

Without arguments: lint, types and the fast tests, which start no server and no browser; under 3 minutes on two cores.
--all: all tests; those of the servers, which mostly wait, run beside those that compute and those of the scripts, at
low priority, and then those of the browsers. Other arguments go to pytest.

example:
  scripts/test.sh
  scripts/test.sh --all
  scripts/test.sh tests/losses -k crf
EOF
        exit
        ;;
esac

# shellcheck source=scripts/environment.sh
source scripts/environment.sh

static_checks() {
    ruff check . && ruff format --check . && mypy lib apps scripts benchmarks
}

servers=(tests/server tests/trainers)
scripts=(tests/scripts)
browsers=(tests/viewer)
half=(tests/benchmarks tests/demo tests/exchange tests/geometry tests/losses tests/report)
computing=()
for tests in tests/*/ tests/test_*.py; do
    [[ " ${servers[*]} ${scripts[*]} ${browsers[*]} ${half[*]} " == *" ${tests%/} "* || $tests == */__pycache__/ ]] || computing+=("${tests%/}")
done

static_checks_and_half_of_the_fast_tests() {
    local status=0
    static_checks || status=$?
    python -m pytest -m "not slow" "${servers[@]}" "${scripts[@]}" "${half[@]}" || status=$?
    return "$status"
}

all_but_those_of_servers() {
    local status=0
    nice -n 19 python -m pytest "${computing[@]}" "${half[@]}" "${scripts[@]}" || status=$?
    python -m pytest "${browsers[@]}" || status=$?
    return "$status"
}

# Runs two commands at once; what the first prints is shown when both have ended. Status 0 if both have it.
beside() { # name of the first, the second with its arguments
    local status=0 log
    log=$(mktemp)
    "$1" >"$log" 2>&1 &
    # shellcheck disable=SC2064
    trap "kill $! 2>/dev/null || true; rm -f '$log'" EXIT
    "${@:2}" || status=$?
    wait "$!" || status=$?
    cat "$log"
    return "$status"
}

if (($# == 0)); then
    beside static_checks_and_half_of_the_fast_tests python -m pytest -m "not slow" "${computing[@]}"
elif [[ $1 == --all ]]; then
    static_checks
    beside all_but_those_of_servers python -m pytest "${servers[@]}"
else
    static_checks
    exec python -m pytest "$@"
fi
