"""Uncertainty of measured numbers: intervals, comparisons, unbiased estimates at k samples, power; and how well scores
rank (AUC) and mean what they say (Brier score, calibration error).

Pure functions; what each interval means and when to use it is in docs/statistics.md. numpy is imported only by what
resamples or simulates.
"""

from flyweight.stats.at_k import best_at_k, maj_at_k, pass_at_k, resampled_at_k
from flyweight.stats.calibration import Calibrated, brier, calibrated, ece
from flyweight.stats.comparisons import McNemar, holm, mcnemar, paired_bootstrap
from flyweight.stats.intervals import Interval, bootstrap_mean, clustered_mean, wilson
from flyweight.stats.power import problems_needed, problems_needed_paired
from flyweight.stats.ranking import RiskPoint, auc, auc_within, clustered_auc, risk_coverage

__all__ = [
    "Calibrated",
    "Interval",
    "McNemar",
    "RiskPoint",
    "auc",
    "auc_within",
    "best_at_k",
    "bootstrap_mean",
    "brier",
    "calibrated",
    "clustered_auc",
    "clustered_mean",
    "ece",
    "holm",
    "maj_at_k",
    "mcnemar",
    "paired_bootstrap",
    "pass_at_k",
    "problems_needed",
    "problems_needed_paired",
    "resampled_at_k",
    "risk_coverage",
    "wilson",
]
