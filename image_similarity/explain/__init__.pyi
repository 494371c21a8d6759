from .maps import class_map, pair_maps
from .parts import Only

__all__ = [
    "Only",
    "class_map",
    "pair_maps",
]
