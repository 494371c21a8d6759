from .scorers import PairScorer
from .search import PairIndex, pair_index

__all__ = [
    "PairIndex",
    "PairScorer",
    "pair_index",
]
