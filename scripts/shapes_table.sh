#!/usr/bin/env bash
# Trains the shapes experiments over several seeds, evaluates them and the base model they start
# from, and writes the table (mean, standard deviation, n) as Markdown and JSON:
#   bash scripts/shapes_table.sh
#   bash scripts/shapes_table.sh --experiments shapes shapes_clip --seeds 0 1 --jobs 2
# Finished work is not repeated; --help shows every option.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

use_environment
exec "$PYTHON" "$CHECKOUT/scripts/shapes_table.py" "$@"
