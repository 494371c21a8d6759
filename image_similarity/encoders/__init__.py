"""From images and words to vectors: networks and their weights, runtimes, text, models in folders.

Start with `encoder`; `text_image` is the same for words, `model_files` how both are kept.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
