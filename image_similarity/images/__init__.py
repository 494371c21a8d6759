"""Files in, safely: open pictures, list folders, read tables, zips and data sets.

Start with `opening`, the one way in for every picture: which formats, how large, which way up. A new format goes there.
Then `labels` and `datasets`. `console` has what commands say while they work; `replacing` writes files whole or not at all.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
