"""fastai: the classifier, the Siamese network, metric learning.

Start with `classifier`, then `siamese_data`, `siamese_head` and `siamese`.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
