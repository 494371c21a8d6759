from . import images, drawing, metrics, encoders, scoring, learners, explain, groups, gallery, finder, matching, products, service, cli
from .images.errors import ImageError
from .images.opening import open_image
from .images.listing import image_files, label_func
from .images.zip_entries import ArchiveError, ArchiveLimits
from .images.datasets import LabelledImages, labelled_images
from .images.oxford import oxford_pets
from .drawing.pets import sample_pets
from .metrics.ranking import map_at_r, recall_at_k
from .metrics.pairs import pair_auc, threshold_for_precision
from .metrics.intervals import bootstrap_interval, image_bootstrap
from .metrics.calibration import Calibration, expected_calibration_error, fit_calibration
from .metrics.relevance_tables import rank_figures
from .encoders.eight_bits import quantised
from .encoders.encoder import create_encoder, embed
from .encoders.text_image import ConSEEncoder, encode_prompts
from .encoders.clip import OpenCLIPEncoder
from .encoders.mixtures import Mixture, picture, words
from .scoring.scorers import PairScorer
from .scoring.search import PairIndex, pair_index
from .learners.mining import mine_hard_negatives
from .learners.classifier import classifier_learner
from .learners.siamese_data import SiameseImage, SiameseTransform
from .learners.siamese_head import pair_accuracy, siamese_loss
from .learners.siamese import SiameseModel, siamese_learner, siamese_splitter
from .learners.metric_learning import embedding_learner, load_embedding, save_embedding
from .learners.encoder_tuning import Tuning
from .explain.maps import class_map, pair_maps
from .explain.parts import Only
from .groups.sheets import contact_sheet
from .groups.duplicates import find_duplicates
from .groups.clusters import find_clusters
from .gallery.gallery import Gallery
from .finder.finder import SimilarityFinder
from .finder.evaluation import Evaluation, evaluate
from .finder.training import fit_finder
from .finder.onnx_export import export_onnx
from .finder.inspection import inspect_gallery
from .finder.model_card import write_card
from .matching.automm import convert_data_for_ranking
from .matching.predictor import MatchPredictor
from .matching.search import MultiModalPredictor, semantic_search
from .products.matcher import ProductMatcher
from .service.app import create_app
from .service.client import Client

__version__: str

__all__ = [
    "ArchiveError",
    "ArchiveLimits",
    "Calibration",
    "Client",
    "ConSEEncoder",
    "Evaluation",
    "Gallery",
    "ImageError",
    "LabelledImages",
    "MatchPredictor",
    "Mixture",
    "MultiModalPredictor",
    "Only",
    "OpenCLIPEncoder",
    "PairIndex",
    "PairScorer",
    "ProductMatcher",
    "SiameseImage",
    "SiameseModel",
    "SiameseTransform",
    "SimilarityFinder",
    "Tuning",
    "bootstrap_interval",
    "class_map",
    "classifier_learner",
    "contact_sheet",
    "convert_data_for_ranking",
    "create_app",
    "create_encoder",
    "embed",
    "embedding_learner",
    "encode_prompts",
    "evaluate",
    "expected_calibration_error",
    "export_onnx",
    "find_clusters",
    "find_duplicates",
    "fit_calibration",
    "fit_finder",
    "image_bootstrap",
    "image_files",
    "inspect_gallery",
    "label_func",
    "labelled_images",
    "load_embedding",
    "map_at_r",
    "mine_hard_negatives",
    "open_image",
    "oxford_pets",
    "pair_accuracy",
    "pair_auc",
    "pair_index",
    "pair_maps",
    "picture",
    "quantised",
    "rank_figures",
    "recall_at_k",
    "sample_pets",
    "save_embedding",
    "semantic_search",
    "siamese_learner",
    "siamese_loss",
    "siamese_splitter",
    "threshold_for_precision",
    "words",
    "write_card",
]
