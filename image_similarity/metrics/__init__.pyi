from .ranking import map_at_r, recall_at_k
from .pairs import pair_auc, threshold_for_precision
from .intervals import bootstrap_interval, image_bootstrap
from .calibration import Calibration, cllr, expected_calibration_error, fit_calibration
from .relevance_tables import rank_figures

__all__ = [
    "Calibration",
    "bootstrap_interval",
    "cllr",
    "expected_calibration_error",
    "fit_calibration",
    "image_bootstrap",
    "map_at_r",
    "pair_auc",
    "rank_figures",
    "recall_at_k",
    "threshold_for_precision",
]
