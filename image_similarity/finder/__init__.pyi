from .finder import SimilarityFinder
from .evaluation import Evaluation, evaluate
from .training import fit_finder
from .onnx_export import export_onnx
from .inspection import inspect_gallery
from .model_card import write_card

__all__ = [
    "Evaluation",
    "SimilarityFinder",
    "evaluate",
    "export_onnx",
    "fit_finder",
    "inspect_gallery",
    "write_card",
]
