from .maps import class_map, pair_maps

__all__ = [
    "class_map",
    "pair_maps",
]
