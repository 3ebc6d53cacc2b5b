"""Benchmarks, for any model: each distinct image and text is encoded once, then scored."""

from clic.evaluation.cache import FeatureCache
from clic.evaluation.plan import Plan, prepare
from clic.evaluation.registry import BENCHMARKS, GROUPS, Benchmark
from clic.evaluation.report import Report
from clic.evaluation.runner import evaluate, run

__all__ = [
    "BENCHMARKS",
    "GROUPS",
    "Benchmark",
    "FeatureCache",
    "Plan",
    "Report",
    "evaluate",
    "prepare",
    "run",
]
