"""Benchmarks for any model: each distinct image and text is encoded once, then all are scored."""

from clic.evaluation.benchmarks.benchmark import Benchmark
from clic.evaluation.benchmarks.catalogue import BENCHMARKS, GROUPS
from clic.evaluation.encode.feature_cache import FeatureCache
from clic.evaluation.evaluation_plan import EvaluationPlan, prepare
from clic.evaluation.report.report import Report
from clic.evaluation.runner import evaluate, run

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
