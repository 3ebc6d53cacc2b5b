"""Benchmarks for any model: each distinct image and text is encoded once, then all are scored."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clic.evaluation.benchmarks.benchmark import Benchmark
from clic.evaluation.benchmarks.catalogue import BENCHMARKS, GROUPS

if TYPE_CHECKING:
    from clic.evaluation.encode.feature_cache import FeatureCache
    from clic.evaluation.evaluation_plan import EvaluationPlan, prepare
    from clic.evaluation.report.report import Report
    from clic.evaluation.runner import evaluate, run

# Imported on first access, so that listing the benchmarks does not load torch.
_HOMES = {
    "EvaluationPlan": "clic.evaluation.evaluation_plan",
    "FeatureCache": "clic.evaluation.encode.feature_cache",
    "Report": "clic.evaluation.report.report",
    "evaluate": "clic.evaluation.runner",
    "prepare": "clic.evaluation.evaluation_plan",
    "run": "clic.evaluation.runner",
}

__all__ = [
    "BENCHMARKS",
    "GROUPS",
    "Benchmark",
    "EvaluationPlan",
    "FeatureCache",
    "Report",
    "evaluate",
    "prepare",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clic.evaluation' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
