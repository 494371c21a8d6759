from .pets import sample_pets

__all__ = [
    "sample_pets",
]
