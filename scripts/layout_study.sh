#!/usr/bin/env bash
# Runs the study behind docs/layout.md: trains the rows of each part over several seeds and
# two base models (the second one is built first), evaluates them, and writes OUT.json, OUT_tables.md
# and the figure img/NAME.png beside them:
#   bash scripts/layout_study.sh --jobs 2 --out docs/layout
#   bash scripts/layout_study.sh --parts main share --seeds 0 1
#   bash scripts/layout_study.sh --only-report --out docs/layout    # from OUT.json, running nothing
#   bash scripts/layout_study.sh --parts main --words train.max_steps=20    # a quick look
# Finished work is not repeated; --help shows every option.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

use_environment
exec "$PYTHON" "$CHECKOUT/scripts/layout_study.py" "$@"
