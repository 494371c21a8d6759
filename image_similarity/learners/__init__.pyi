from .mining import mine_hard_negatives
from .classifier import classifier_learner
from .siamese_data import SiameseImage, SiameseTransform
from .siamese_head import pair_accuracy, siamese_loss
from .siamese import SiameseModel, siamese_learner, siamese_splitter
from .metric_learning import embedding_learner, load_embedding, save_embedding
from .encoder_tuning import Tuning

__all__ = [
    "SiameseImage",
    "SiameseModel",
    "SiameseTransform",
    "Tuning",
    "classifier_learner",
    "embedding_learner",
    "load_embedding",
    "mine_hard_negatives",
    "pair_accuracy",
    "save_embedding",
    "siamese_learner",
    "siamese_loss",
    "siamese_splitter",
]
