"""Where in the pictures an answer comes from: maps that add up to it, and how faithful they are.

Start with `maps`.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
