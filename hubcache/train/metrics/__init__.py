"""Metrics of fine-tuning and evaluation, computed over a whole corpus with numpy and without a network.

No metric here averages over batches, loads a model or asks a hub. Every function takes (predictions, references), row
by row, and raises ValueError where they do not match or there are none. Plain metrics run from 0 to 1; those named
after a benchmark or tool, in the unit that its official script prints (`Metric.perfect` says which).
"""

from hubcache.train.metrics.registry import METRICS, Metric, is_better, metric, scores

__all__ = ["METRICS", "Metric", "is_better", "metric", "scores"]
