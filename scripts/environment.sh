# shellcheck shell=bash
# Sourced by the other scripts: finds or makes their Python environment.
#
# By default that is .venv in the checkout, made with the first Python >= 3.10 on the PATH. To work
# in an environment of your own (conda, a container), name its interpreter:
#   CLIC_PYTHON=python bash scripts/demo.sh
# The packages then go into that environment. pip's own variables work as usual, e.g. for a smaller
# torch on a machine without a GPU:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash scripts/demo.sh

CHECKOUT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# help_of SCRIPT WORDS: if help is requested, prints the comment at the script's head and exits.
help_of() {
    case ${2:-} in
        -h | --help) sed -n '2,/^[^#]/{/^[^#]/d;s/^# \{0,1\}//;p;}' "$1"; exit 0 ;;
    esac
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# Prints the first interpreter on the PATH that is new enough.
find_python() {
    local name seen=()
    for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
        command -v "$name" >/dev/null || continue
        if is_new_enough "$name"; then
            command -v "$name"
            return
        fi
        seen+=("$name is $("$name" -V 2>&1 || true);")
    done
    fail "clic needs Python >= 3.10, and there is none on the PATH (${seen[*]:-no python3 at all})." \
        "Install one, or name it: CLIC_PYTHON=/path/to/python"
}

make_venv() {
    local python site unfinished=$CHECKOUT/.venv.unfinished
    # Never clear a .venv that something else made (uv's have no pip).
    if [[ -e $CHECKOUT/.venv && ! -e $unfinished ]] &&
        ! compgen -G "$CHECKOUT/.venv/clic-installed*" >/dev/null; then
        fail "$CHECKOUT/.venv has no working pip and was not made by this script; remove it," \
            "or name an interpreter: CLIC_PYTHON=/path/to/python"
    fi
    python=$(find_python)
    echo "making $CHECKOUT/.venv with $python ($("$python" -V))"
    touch "$unfinished"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv --clear "$CHECKOUT/.venv"
    else
        # Debian keeps ensurepip in a separate package; any pip can fill an empty environment.
        "$python" -m pip --version >/dev/null || fail "$python has no pip; install it first"
        "$python" -m venv --clear --without-pip "$CHECKOUT/.venv"
        site=$("$CHECKOUT/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        "$python" -m pip install --quiet --target "$site" pip
    fi
    rm "$unfinished"
}

# with_heartbeat COMMAND...: prints now and then that the silent command is still running.
with_heartbeat() {
    local beat status=0 begun=$SECONDS
    # The sleep keeps no pipe open, and the loop ends with the script that started it.
    while sleep "${HEARTBEAT:-20}" >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        echo "  still installing ($((SECONDS - begun)) s)"
    done &
    beat=$!
    "$@" || status=$?
    kill "$beat" 2>/dev/null || true
    wait "$beat" 2>/dev/null || true
    return "$status"
}

# use_environment [EXTRAS]: installs the checkout, editable, with the extras (e.g. "dev") unless
# already done, and sets PYTHON and BIN, the folder of clic-train and the other commands.
use_environment() {
    local extras=${1:-} stamp wanted
    if [[ -n ${CLIC_PYTHON:-} ]]; then
        PYTHON=$(command -v "$CLIC_PYTHON") || fail "CLIC_PYTHON=$CLIC_PYTHON is no program"
        is_new_enough "$PYTHON" || fail "CLIC_PYTHON=$PYTHON is $("$PYTHON" -V); clic needs >= 3.10"
    else
        PYTHON=$CHECKOUT/.venv/bin/python
        if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
            make_venv
        fi
    fi
    BIN=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')
    # The installation depends on pyproject.toml and on the location of the checkout.
    stamp=$("$PYTHON" -c 'import sys; print(sys.prefix)')/clic-installed${extras:+-$extras}
    wanted="$CHECKOUT $(cksum <"$CHECKOUT/pyproject.toml")"
    if [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
        echo "installing clic${extras:+[$extras]} (the first time takes some minutes: torch is large)"
        with_heartbeat "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-input \
            --editable "$CHECKOUT${extras:+[$extras]}"
        printf '%s\n' "$wanted" >"$stamp" || echo "note: cannot write $stamp; installed again next time"
    fi
    export PYTHON BIN
}
