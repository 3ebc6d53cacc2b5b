"""The tables of benchmarks: rows over unique images and texts, which can be scored.

In: features of the images and texts. Out: numbers, each row's outcome, and the worst failures.
Read `table` (shared by all kinds), then one kind: `triplets`, `grids`, `retrieval`,
`classification` or `judgements`; finally `failure_cards`. A new kind is one file and one entry in
KINDS.
"""

from collections.abc import Mapping
from typing import Any

from clic.evaluation.tables.classification import Classification
from clic.evaluation.tables.grids import Grids
from clic.evaluation.tables.judgements import Judgements
from clic.evaluation.tables.retrieval import Retrieval
from clic.evaluation.tables.table import BenchmarkTable
from clic.evaluation.tables.triplets import Triplets

KINDS: tuple[type[BenchmarkTable], ...] = (
    Retrieval,
    Classification,
    Grids,
    Judgements,
    Triplets,
)


def kind_of(row: Mapping[str, Any]) -> type[BenchmarkTable]:
    """Return the kind of table that a row belongs to, by its keys.

    Raises:
        KeyError: The row's keys match no kind.
    """
    for kind in KINDS:
        if kind.ROW_KEY in row:
            return kind
    raise KeyError(KINDS[-1].ROW_KEY)
