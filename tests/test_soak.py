"`.ci/soak` lets every encoder err a little, and nothing else."
import os
import subprocess
import sys
from pathlib import Path

import pytest

ERRS = """
import importlib, torch
import sitecustomize
for module, (owner, method, _) in sitecustomize.ERRING.items():
    assert hasattr(getattr(getattr(importlib.import_module(module), owner), method), "__wrapped__"), (module, owner, method)
from image_similarity.encoders.encoder import create_encoder
torch.manual_seed(0)
encoder, x = create_encoder("test_resnet", "random", 64), torch.rand(4, 3, 64, 64)
torch.set_grad_enabled(False)
one, two = encoder(x), encoder(x)
traced = torch.jit.trace(encoder, x, check_trace=False)
assert torch.equal(traced(x), traced(x)) # what is written down does not err
error = ((one - two) / traced(x)).numpy()[traced(x).numpy() != 0] / sitecustomize.ERROR / 2 ** .5
assert .9 < error.std() < 1.1 and abs(error).max() < 7
"""


@pytest.mark.soak
def test_every_encoder_errs_and_nothing_that_is_written_down():
    folder = Path(__file__).resolve().parent.parent / ".ci" / "soak"
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, "-c", ERRS], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
