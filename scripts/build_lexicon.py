"""Build the lexicon that ships with the package, or check that it matches its sources.

    apt-get install wordnet-base && pip install lemminflect==0.2.3
    python scripts/build_lexicon.py            # writes clic/captions/data/lexicon.txt
    python scripts/build_lexicon.py --check    # exits with 1 if that file would differ

Sources: the contrast sets in scripts/lexicon/ and WordNet 3.0's database files. The same sources
give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lexicon.contrast import compile_sets
from lexicon.forms import Inflector
from lexicon.relations import (
    antonym_lines,
    banned_words,
    co_hyponym_lines,
    excluded_words,
    related_pairs,
    slurs,
)
from lexicon.wordnet import WordNet

from clic.captions.lexicon import Lexicon

SOURCES = Path(__file__).resolve().parent / "lexicon"
TARGET = SOURCES.parents[1] / "clic" / "captions" / "data" / "lexicon.txt"
MAX_BYTES = 1_000_000

HEADER = """\
# Words that exclude each other, written by scripts/build_lexicon.py: edit its sources, not this.
# The lines named wn-... are derived from WordNet 3.0, (c) 2006 Princeton University, under the
# licence in WORDNET_LICENSE beside this file; so are the counts after "*".
"""


def build(folder: Path) -> str:
    """Return the text of the lexicon.

    Args:
        folder: WordNet's dict folder.

    Raises:
        ValueError: A source breaks a rule, such as a banned word in a contrast set.
    """
    wordnet = WordNet(folder)
    inflector = Inflector(SOURCES / "overrides.txt")
    banned = banned_words((SOURCES / "banned.txt").read_text(encoding="utf-8"))
    sets = (SOURCES / "contrast_sets.txt").read_text(encoding="utf-8").splitlines()
    own = compile_sets(sets, inflector, wordnet, banned)
    excluded, skipped = excluded_words((SOURCES / "excluded.txt").read_text(encoding="utf-8"))
    taken = own.known | banned | slurs(wordnet) | excluded
    lines = [
        *own.lines,
        *antonym_lines(wordnet, inflector, taken),
        *co_hyponym_lines(wordnet, inflector, taken, skipped),
    ]
    text = HEADER + "\n".join(lines) + "\n"
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"the lexicon has {len(text.encode())} bytes, over {MAX_BYTES}")
    distinct = (SOURCES / "distinct.txt").read_text(encoding="utf-8")
    if pairs := related_pairs(Lexicon(text.splitlines()), wordnet, distinct):
        raise ValueError(f"pairs that WordNet relates: {sorted(pairs)}")
    return text


def main() -> int:
    """Build or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--check", action="store_true", help="compare with the shipped file")
    arguments = parser.parse_args()
    try:
        text = build(arguments.wordnet)
    except FileNotFoundError as error:
        reason = f"{error.filename} is missing; apt-get install wordnet-base, or give --wordnet"
        print(f"build_lexicon: error: {reason}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed; pip install lemminflect==0.2.3"
        print(f"build_lexicon: error: {reason}", file=sys.stderr)
        return 2
    if arguments.check:
        same = TARGET.read_text(encoding="utf-8") == text
        print(f"{TARGET} is {'what the sources give' if same else 'NOT what the sources give'}")
        return 0 if same else 1
    part = TARGET.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, TARGET)
    print(f"wrote {TARGET}: {len(text.encode())} bytes, {text.count(chr(10))} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
