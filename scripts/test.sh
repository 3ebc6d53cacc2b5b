#!/usr/bin/env bash
# Sets up the environment (see scripts/environment.sh) and runs the tests: all of them in two
# processes, or what the arguments say, which go to pytest:
#   bash scripts/test.sh
#   bash scripts/test.sh tests/unit -k loss
#   bash scripts/test.sh -m "not slow"
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

help_of "$0" "$@"

# Tests use small models, some in several processes: more threads would only wait for each other.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

use_environment dev
cd -- "$CHECKOUT"
if (($# == 0)) && "$PYTHON" -c "import xdist" 2>/dev/null; then
    # A file's tests share what they build, and stay together.
    set -- --numprocesses 2 --dist loadfile
fi
exec "$PYTHON" -m pytest "$@"
