"""`SimilarityFinder`: two learners and a gallery; train, evaluate, demo, export.

Start with `finder`, then `training`.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
