from .matcher import ProductMatcher

__all__ = [
    "ProductMatcher",
]
