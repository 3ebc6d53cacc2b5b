#!/usr/bin/env bash
# Sets up the environment (see scripts/environment.sh) and runs the tests; arguments go to pytest:
#   bash scripts/test.sh
#   bash scripts/test.sh tests/unit -k loss
#   bash scripts/test.sh -m "not slow"
# Without arguments all tests run, in as many processes as there are cores, at most four.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

help_of "$0" "$@"

# Tests use small models, some in several processes; more threads would only contend.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

use_environment dev
cd -- "$CHECKOUT"
if (($# == 0)); then
    cores=$("$PYTHON" -c 'from clic.io.processes import usable_cores; print(min(4, usable_cores()))')
    set -- -n "$cores" --dist loadfile  # so that fixtures shared in a file are made once
fi
exec "$PYTHON" -m pytest "$@"
