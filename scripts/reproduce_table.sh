#!/usr/bin/env bash
# Evaluates published checkpoints by name, prints the papers' numbers beside those scored here, and
# compares all of them, with paired bootstrap intervals:
#   bash scripts/reproduce_table.sh --data data
#   bash scripts/reproduce_table.sh --data data ViT-B-32:openai negclip=/weights/negclip.pth
# Finished work is not repeated; --help shows every option.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

use_environment
exec "$PYTHON" "$CHECKOUT/scripts/reproduce_table.py" "$@"
