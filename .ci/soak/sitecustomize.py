"""Let every encoder err: a random relative error of 2e-6 on each number that comes out, as another processor would have it.

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


def erring_arrays(run):
    "A method that gives a numpy array."
    import numpy as np
    rng = np.random.default_rng(SEED)

    @wraps(run)
    def erring(*args, **kwargs):
        found = run(*args, **kwargs)
        return (found * (1 + ERROR * rng.standard_normal(found.shape))).astype(found.dtype)
    return erring


def erring_tensors(run):
    "A method that gives a tensor; it is left alone where it is only written down, for OpenVINO or ONNX."
    import torch
    rng = torch.Generator().manual_seed(SEED) # one of its own: what a notebook draws stays what it was

    @wraps(run)
    def erring(*args, **kwargs):
        found = run(*args, **kwargs)
        if torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export(): return found
        return found * (1 + ERROR * torch.randn(found.shape, generator=rng)).to(found)
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
