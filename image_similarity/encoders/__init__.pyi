from .encoder import create_encoder, embed
from .eight_bits import quantised
from .text_image import ConSEEncoder, encode_prompts
from .clip import OpenCLIPEncoder
from .mixtures import Mixture, picture, words

__all__ = [
    "ConSEEncoder",
    "Mixture",
    "OpenCLIPEncoder",
    "create_encoder",
    "embed",
    "encode_prompts",
    "picture",
    "quantised",
    "words",
]
