"""Find the images that are similar to this one, say how sure you are, and show why.

The public names are those of `__init__.pyi`. Each is loaded from its room when it is first used, so that
`import image_similarity` takes no time and torch and fastai wait until something needs them.
"""
import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
