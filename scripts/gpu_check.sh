#!/usr/bin/env bash
# Checks clic on a GPU machine: runs the tests that need a GPU and a short timing of ViT-B/32
# training, and writes one JSON file.
#   bash scripts/gpu_check.sh [--out FILE] [WHEELS_DIR]
# The machine may be bare: python3 (or CLIC_PYTHON) with torch, torchvision, pytest and setuptools.
# For a machine without network, clic's other dependencies may come as a folder of wheels, made by
#   pip wheel --wheel-dir WHEELS_DIR --no-deps NAME ...
# on a machine with network and the same Python. Some packages (antlr4-python3-runtime) can only be
# downloaded as source, which `pip wheel` builds.
# Nothing is installed into the machine's own Python.
# Exit code 0: success; 1: a test or the timing failed (see the JSON); 2: it cannot run here.
set -euo pipefail

usage="usage: bash scripts/gpu_check.sh [--out FILE] [WHEELS_DIR]"
fail() {
    printf 'gpu_check: error: %s\n' "$*" >&2
    exit 2
}

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=${CLIC_PYTHON:-python3}
out=gpu_check.json
wheels=
while (($#)); do
    case $1 in
        -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
        --out) (($# > 1)) || fail "--out needs a file ($usage)"; out=$2; shift 2 ;;
        -*) fail "unknown option $1 ($usage)" ;;
        *) [[ -z $wheels ]] || fail "more than one folder of wheels ($usage)"; wheels=$1; shift ;;
    esac
done

command -v "$python" >/dev/null || fail "$python is no program; name a Python with CLIC_PYTHON"
"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
    fail "no GPU: $python has no torch that sees a CUDA GPU (scripts/test.sh runs the other tests)"
[[ -z $wheels || -d $wheels ]] || fail "$wheels is no folder of wheels"
wheels=${wheels:+$(cd -- "$wheels" && pwd)}

folder=$(cd -- "$(dirname -- "$out")" 2>/dev/null && pwd) || fail "--out $out: no such folder"
out=$folder/$(basename -- "$out")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
site=$work/site
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
install() {
    "$python" -m pip install --quiet --disable-pip-version-check --no-input \
        --no-index --no-deps --no-compile --no-build-isolation --upgrade --target "$site" "$@"
}
if [[ -n $wheels ]]; then
    files=("$wheels"/*.whl)
    [[ -e ${files[0]} ]] ||
        fail "there are no wheels (*.whl) in $wheels; make them with: pip wheel --wheel-dir $wheels --no-deps NAME ..."
    for file in "$wheels"/*.tar.gz "$wheels"/*.zip; do
        [[ ! -e $file ]] ||
            fail "$file is a source, not a wheel; build it with: pip wheel --wheel-dir $wheels --no-deps $file"
    done
    install "${files[@]}"
fi
# Built from a copy, because a build leaves folders behind.
mkdir "$work/source"
cp -r "$checkout"/{pyproject.toml,README.md,LICENSE,clic,configs} "$work/source"
install "$work/source"

cd "$work"
"$python" "$checkout/scripts/gpu_check.py" "$out"
