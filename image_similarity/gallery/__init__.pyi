from .groups import Gallery

__all__ = [
    "Gallery",
]
