# shellcheck shell=bash
# Sourced by the other scripts: makes .venv from requirements.txt and web/dist from web/src where they are missing or out
# of date, activates .venv.
# PYTHON names the interpreter to make it with; without it the first that fits is taken.

_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
_venv=$_root/.venv
_stamp=$_venv/.requirements.sha256

_give_up() {
    printf '%s\n' "$@" >&2
    exit 1
}

_fits() {
    # numpy 1.26 has no wheels for 3.13, SciPy 1.17 none for 3.10.
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

_find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12; do
        if _fits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        [[ -z ${PYTHON:-} ]] ||
            _give_up "PYTHON is '$PYTHON', which is no Python 3.11 or 3.12 that runs; name one that is, or unset it."
    done
    _give_up "There is no Python 3.11 or 3.12 here, and the pinned packages need one." \
        "On Debian and Ubuntu: sudo apt-get install python3.11 python3.11-venv (Ubuntu 24.04: python3.12 and -venv)." \
        "PYTHON=/path/to/python3.11 in front of the command names one that is not on PATH."
}

_make_venv() {
    local python version
    python=$(_find_python) || exit 1
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        _give_up "Python $version lacks its venv module; on Debian and Ubuntu: sudo apt-get install python$version-venv"
    "$python" -m venv --clear "$_venv" || _give_up "The environment could not be made in $_venv; the cause stands above."
}

_usable() {
    # An environment that was moved or copied still has the old place written into its scripts.
    _fits "$_venv/bin/python" && grep -qsF "$_venv" "$_venv/bin/activate"
}

_install() (
    cd "$_root" || exit 1
    _usable || [[ ! -L $_venv ]] || rm "$_venv" # the environment of another checkout
    rm -f "$_stamp" # an install cut short is no install
    { _usable && "$_venv/bin/python" -m pip --version >/dev/null 2>&1; } || _make_venv
    echo "Installing the packages of requirements.txt into .venv (once; 4 GB, about 4 minutes) ..." >&2
    # MONAI Label requires sam2, which is built from source with torch. PIP_CONSTRAINT holds for that build as well;
    # with -c pip would fetch the newest torch for it. Its CUDA extension takes minutes and is not used here.
    [[ -t 2 ]] || export PIP_QUIET=2 PIP_PROGRESS_BAR=off
    PIP_CONSTRAINT=constraints.txt SAM2_BUILD_CUDA=0 \
        "$_venv/bin/python" -m pip install --no-input --disable-pip-version-check -r requirements.txt >&2 ||
        _give_up "The packages could not be installed; pip's message stands above. The same command continues from here."
    echo "Compiling the kernels (once; half a minute) ..." >&2
    "$_venv/bin/python" -m lib.compile_kernels >&2 ||
        echo "The kernels could not be compiled; the cause stands above. The server compiles them when it starts." >&2
    _checksum >"$_stamp"
)

_checksum() {
    cat "$_root/requirements.txt" "$_root/constraints.txt" | sha256sum
}

_up_to_date() {
    [[ -f $_stamp && $(<"$_stamp") == "$(_checksum)" ]] && _usable
}

_write_command() {
    # MONAI Label's own `monailabel` splits its arguments at spaces and takes whatever python comes first on PATH.
    local command=$_venv/bin/monailabel text
    text=$(printf '#!/usr/bin/env bash\n# Made by scripts/environment.sh.\n' &&
        printf 'export PYTHONPATH=%q${PYTHONPATH:+:$PYTHONPATH}\n' "$_root" &&
        printf 'exec %q -P -m lib.server.launch "$@"\n' "$_venv/bin/python")
    [[ ! -f $command || $(<"$command") != "$text" ]] || return 0
    # Somebody else's checkout may be read-only; the scripts do without the command.
    [[ -w $_venv/bin ]] || return 0
    printf '%s\n' "$text" >"$command.$$" && chmod 755 "$command.$$" && mv -f "$command.$$" "$command"
}

_build_page() {
    [[ -f $_root/web/package-lock.json ]] || return 0
    (flock 9 && "$_root/scripts/build_page.sh") 9<"$_root/web/package-lock.json" ||
        echo "The annotation page could not be built; the cause stands above. The server does without it:" \
            "OHIF and 3D Slicer work, and the next start tries again." >&2
}

# The lock keeps a second script from installing into the same folder. It is held in a subshell only: a server that
# the calling script becomes would never let go of it.
_up_to_date || (flock 9 && { _up_to_date || _install; }) 9<"$_root/requirements.txt" || exit 1
_write_command
_build_page

# shellcheck disable=SC1091
source "$_venv/bin/activate"

# The process becomes that of a Python file of this folder; paths among its arguments are relative to the caller's folder.
run_script() { # name, its arguments
    PYTHONPATH=$_root${PYTHONPATH:+:$PYTHONPATH} exec python -P "$_root/scripts/$1.py" "${@:2}"
}
