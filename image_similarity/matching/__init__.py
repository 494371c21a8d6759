"""`MatchPredictor`: learn from a table of pairs, of pictures or of pictures and texts, what matches.

Start with `predictor`: it reads tables (`pairs`, `leaks`) and leaves the rest to one of three parts, chosen in its constructor.
The chapters of two of them have the same names, so whoever knows one knows both: `image_items`, `image_training`, … `image_matcher`
for two columns of pictures, `text_items`, `text_training`, … `text_matcher` for pictures and texts. `sentence_matcher` is for two columns of texts.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
