"""`MatchPredictor`: learn from a table of pairs, of pictures or of pictures and texts, what matches.

Start with `predictor`; `pairs` reads the tables, `training` learns from them.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
