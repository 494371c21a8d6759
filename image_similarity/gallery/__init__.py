"""Pictures, what is known of them and their vectors: kept in a folder, added to, searched.

Start with `gallery`, the class; `catalogue` is what it keeps, `sqlite` where, and `searching` how it finds.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
