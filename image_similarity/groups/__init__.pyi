from .sheets import contact_sheet
from .duplicates import find_duplicates
from .clusters import find_clusters

__all__ = [
    "contact_sheet",
    "find_clusters",
    "find_duplicates",
]
