"""The trained heads as plain matrices: exact over a whole gallery, at the speed of memory.

Start with `scorers`, where a head is folded; `search` compares a query with everything.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
