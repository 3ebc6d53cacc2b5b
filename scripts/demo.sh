#!/usr/bin/env bash
# The whole job, end to end, on a laptop's CPU and without any data: fine-tunes the small CLIP that
# ships with the package, evaluates it beside its base, and interpolates between the two.
#   bash scripts/demo.sh
# Needs Python >= 3.10 with pip; takes a few minutes, mostly to install torch. The environment is
# .venv in the checkout, or that of CLIC_PYTHON (see scripts/environment.sh). Results go to runs/ in
# the checkout, wherever it is called from. Calling it again reuses the environment, continues an
# interrupted training run, and otherwise starts a new one.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

help_of "$0" "$@"
(($# == 0)) || fail "demo.sh takes no words, and $1 was given (usage: bash scripts/demo.sh)"

# Prints a title, then the command as a user would type it, then its output.
show() {
    printf '\n== %s\n$ %s\n' "$1" "${*:2}"
    "$BIN/$2" "${@:3}"
}

# The model is tiny: one thread is nearly as fast as two, and far faster on a busy machine.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

use_environment
cd -- "$CHECKOUT"

show "1/4 Fine-tune: learn which colour belongs to which shape" clic-train +experiment=shapes
run=$("$PYTHON" -c 'from clic.runs import newest_finished; print(newest_finished())')

show "2/4 Evaluate: the base and the fine-tuned model side by side" \
    clic-eval --bench shapes --model shapes-base --model "$run" --json "$run/eval.json"
# The same explanations as on the page that clic-eval --html writes.
printf '\nWhat the columns are, in percent of rows:\n'
"$PYTHON" -c 'from clic.evaluation.report.score_table import EXPLAINED
for name in ("itt", "tot", "p1", "image_to_text", "text_to_image"):
    print(" ", EXPLAINED[name])'

show "3/4 Patch: the model half-way between the two" clic-patch --alpha 0.5 --run "$run"

show "4/4 Sweep: what is gained and what is lost on the way" \
    clic-patch --sweep 0:1:0.25 --bench shapes --run "$run"

cat <<DONE

== Done in $((SECONDS / 60)) min $((SECONDS % 60)) s. In $CHECKOUT:
$run/model                  the fine-tuned model
$run/patched/alpha-0.50     the model half-way
$run/eval.json              numbers of base and fine-tuned model
$run/sweep.json             numbers of the sweep
$run/sweep.png              its picture
$run/config.yaml            every setting
The commands clic-train, clic-eval, clic-patch and clic-data are in $BIN
DONE
