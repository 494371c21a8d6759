from .predictor import MatchPredictor
from .search import MultiModalPredictor, semantic_search

__all__ = [
    "MatchPredictor",
    "MultiModalPredictor",
    "semantic_search",
]
