"""Let every encoder err: a relative error of 2e-6 on each number that comes out, as another processor would have it. It is drawn, but the same whenever the same
is computed: no processor gives two answers to one question, but may well give another one to the same picture in a larger batch.

Python imports this by itself, in every process, while this folder is on PYTHONPATH: `.ci/soak.sh` puts it there, so that tests,
notebooks and the processes that they start are all met. The package knows nothing of it. SOAK_SEED chooses the errors.
"""
import importlib.abc
import importlib.machinery
import os
import sys
from functools import wraps

ERROR = 2e-6 # float32 results of two instruction sets differ by about so much
SEED = int(os.environ.get("SOAK_SEED", 0))


def _drawn(bits, batch: int):
    "For each of some numbers, given as their 32 bits, and for their batch, a number of mean 0 and deviation 1. Of an array or a tensor, in the arithmetic of 64 bits."
    mixed = (bits * 2654435761 + SEED * 40503 + batch * 69069) % 2**32
    mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 2**32
    mixed = (mixed ^ (mixed >> 13)) * 3266489917 % 2**32
    return (mixed / 2**31 - 1) * 3**.5


def erring_arrays(run):
    "A method that gives a numpy array."
    import numpy as np

    @wraps(run)
    def erring(*args, **kwargs):
        found = run(*args, **kwargs)
        bits = np.ascontiguousarray(found, np.float32).view(np.uint32).astype(np.uint64)
        return (found * (1 + ERROR * _drawn(bits, len(found)))).astype(found.dtype)
    return erring


def erring_tensors(run):
    "A method that gives a tensor; it is left alone where it is only written down, for OpenVINO or ONNX."
    import torch

    @wraps(run)
    def erring(*args, **kwargs):
        found = run(*args, **kwargs)
        if torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export(): return found
        bits = found.detach().float().contiguous().view(torch.int32).long() % 2**32
        return found * (1 + ERROR * _drawn(bits, len(found))).to(found)
    return erring


def erring_model(start):
    "The `__init__` of what keeps a sentence-transformers model, whose numbers err before equal texts share them."
    changed = set() # classes, and not their objects, so that a model can be pickled as ever
    @wraps(start)
    def erring(self, *args, **kwargs):
        start(self, *args, **kwargs)
        kind = type(self.model)
        if kind not in changed: kind.encode = erring_arrays(kind.encode)
        changed.add(kind)
    return erring


ERRING = { # module: (class, method, how)
    "image_similarity.encoders.encoder": ("Encoder", "forward", erring_tensors), # all that torch computes, in training too
    "image_similarity.encoders.runtimes": ("OpenVino", "__call__", erring_arrays),
    "image_similarity.encoders.sentences": ("SentenceEncoder", "__init__", erring_model),
    "image_similarity.encoders.clip": ("OpenCLIPEncoder", "_vectors", erring_arrays), # pictures and texts
}


class Erring(importlib.abc.MetaPathFinder):
    "Finds these modules as Python does, and changes them once they are loaded."

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in ERRING: return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None: return None
        load = spec.loader.exec_module
        def load_and_change(module):
            load(module)
            owner, method, how = ERRING[fullname]
            owner = getattr(module, owner)
            setattr(owner, method, how(getattr(owner, method)))
        spec.loader.exec_module = load_and_change
        return spec


sys.meta_path.insert(0, Erring())
