"""Find the images that are similar to this one, say how sure you are, and show why.

The public names are those of the table below. Each is loaded from its module when it is first used, so that
`import image_similarity` takes no time and torch and fastai wait until something needs them.
"""
from importlib import import_module as _import_module

__version__ = "0.1.0"

# Module by module. A name here must not be a module's as well: importing the module would hide it.
_exports = {
    "images": ["ImageError", "image_files", "label_func", "open_image"],
    "mixtures": ["Mixture", "picture", "words"],
    "drawing": ["sample_pets"],
    "zip_entries": ["ArchiveError", "ArchiveLimits"],
    "datasets": ["LabelledImages", "labelled_images", "oxford_pets"],
    "encoder": ["create_encoder", "embed"],
    "imagenet": [],
    "similarity": [],
    "metrics": ["map_at_r", "pair_auc", "recall_at_k", "threshold_for_precision"],
    "intervals": ["bootstrap_interval", "image_bootstrap"],
    "calibration": ["Calibration", "expected_calibration_error", "fit_calibration"],
    "scorers": ["PairScorer"],
    "pair_search": ["PairIndex", "pair_index"],
    "classifier": ["classifier_learner"],
    "mining": ["mine_hard_negatives"],
    "siamese_data": ["SiameseImage", "SiameseTransform"],
    "siamese_head": ["pair_accuracy", "siamese_loss"],
    "siamese": ["SiameseModel", "siamese_learner", "siamese_splitter"],
    "explain": ["class_map", "pair_maps"],
    "sheets": ["contact_sheet"],
    "duplicates": ["find_duplicates"],
    "clusters": ["find_clusters"],
    "text": ["ConSEEncoder", "encode_prompts"],
    "clip": ["OpenCLIPEncoder"],
    "gallery": [],
    "gallery_groups": ["Gallery"], # with `duplicates` and `clusters`, which that module adds
    "finder": ["SimilarityFinder"],
    "onnx_export": ["export_onnx"],
    "evaluation": ["Evaluation", "evaluate"],
    "training": ["fit_finder"],
    "rank_metrics": ["rank_figures"],
    "matching": ["MatchPredictor"], # with image-text matching, from `text_matching`
    "match_search": ["semantic_search"],
    "products": ["ProductMatcher"],
    "ranking": ["embedding_learner", "load_embedding", "save_embedding"],
    "service": ["create_app"],
    "client": ["Client"],
}
_module_of = {name: module for module, names in _exports.items() for name in names}

__all__ = sorted(_module_of)


def __getattr__(name):
    if name in _module_of:
        value = getattr(_import_module(f"{__name__}.{_module_of[name]}"), name)
        globals()[name] = value  # the next time this function is not asked
        return value
    if name in _exports:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, *_exports})
