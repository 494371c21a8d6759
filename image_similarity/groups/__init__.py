"""Copies of one photo, and clusters of similar ones.

Start with `duplicates` (`verdicts` decides what a copy is), or with `clusters`.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__) # the names of __init__.pyi
