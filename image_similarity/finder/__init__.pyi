from .finder import SimilarityFinder
from .evaluation import Evaluation, evaluate
from .training import fit_finder
from .onnx_export import export_onnx

__all__ = [
    "Evaluation",
    "SimilarityFinder",
    "evaluate",
    "export_onnx",
    "fit_finder",
]
