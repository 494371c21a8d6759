from .opening import ImageError, image_files, label_func, open_image
from .zip_entries import ArchiveError, ArchiveLimits
from .datasets import LabelledImages, labelled_images
from .oxford import oxford_pets

__all__ = [
    "ArchiveError",
    "ArchiveLimits",
    "ImageError",
    "LabelledImages",
    "image_files",
    "label_func",
    "labelled_images",
    "open_image",
    "oxford_pets",
]
