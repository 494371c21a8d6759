from .predictor import MatchPredictor
from .search import semantic_search

__all__ = [
    "MatchPredictor",
    "semantic_search",
]
