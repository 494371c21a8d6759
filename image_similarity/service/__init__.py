"""HTTP: collections, searches, jobs, and the page.

Start with `app`; `protocol` holds what is said and the limits, `gates` what every request passes.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
