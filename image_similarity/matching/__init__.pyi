from .predictor import MatchPredictor
from .semantic import semantic_search

__all__ = [
    "MatchPredictor",
    "semantic_search",
]
