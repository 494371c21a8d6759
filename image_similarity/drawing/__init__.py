"""The drawn pets: pictures that the package makes itself, for the demo, the tests and the tutorials.

Start with `pets`. Nothing outside these looks in here.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
