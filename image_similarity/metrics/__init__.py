"""How similar, how good, how sure: similarity measures, figures for rankings and pairs, intervals, calibration.

Start with `similarity`, then `ranking` and `pairs`.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
