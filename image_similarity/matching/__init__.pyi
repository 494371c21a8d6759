from .automm import convert_data_for_ranking
from .predictor import MatchPredictor
from .search import MultiModalPredictor, semantic_search

__all__ = [
    "MatchPredictor",
    "MultiModalPredictor",
    "convert_data_for_ranking",
    "semantic_search",
]
