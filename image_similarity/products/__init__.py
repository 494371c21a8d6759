"""The same product in another catalogue, by picture, title and attributes.

Start with `matcher`.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
