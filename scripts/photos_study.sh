#!/usr/bin/env bash
# Runs the study behind docs/photos.md: builds the base from Flickr8k and two pretrained towers,
# trains each recipe over several seeds, evaluates them, and writes OUT.json and OUT_tables.md:
#   bash scripts/photos_study.sh --data DATA --jobs 2 --out docs/photos
#   bash scripts/photos_study.sh --parts recipes --seeds 0 1
#   bash scripts/photos_study.sh --only-report --out docs/photos    # from OUT.json, running nothing
#   bash scripts/photos_study.sh --parts recipes --words train.max_steps=5    # a quick look
# DATA contains flickr8k, sugarcrepe_pp, bla and coco (clic-eval --bench list shows where each comes
# from). Finished work is not repeated; --help shows every option.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

use_environment photos
exec "$PYTHON" "$CHECKOUT/scripts/photos_study.py" "$@"
