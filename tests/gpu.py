"""The whole way on a GPU, once: python tests/gpu.py [--device cuda] [--pictures PER_BREED] [--size PIXELS]

Trains both learners with mixed precision, fine-tunes them, searches, explains, saves, loads what was saved on the CPU and compares, and says how many
images a second the encoder looks at, beside what timm has published for the network. Not a part of `make test`; `--device cpu --pictures 6 --size 64`
shows in a minute or two that it runs. tests/test_devices.py checks the same without a GPU, on another device that keeps to itself.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

# Images a second through tf_efficientnet_lite0 alone, at 224 pixels, in half precision and channels last, as timm has published them
# (results/benchmark-infer-amp-nhwc-pt240-cu124-*.csv in huggingface/pytorch-image-models).
PUBLISHED = {"RTX 3090, batches of 1,024": 8320, "RTX 4090, batches of 512": 9765}


def say(what: str, since: float) -> None: print(f"{what:<60} {time.perf_counter() - since:7.1f} s", flush=True)


def network_speed(encoder, size: int, batch: int, seconds: float = 3.) -> float:
    "Images a second through the network alone, as timm measures it: half precision on a GPU, channels last, nothing read from disk."
    device = next(encoder.parameters()).device
    half = device.type == "cuda"
    x = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    network, done = deepcopy(encoder).to(memory_format=torch.channels_last).eval(), 0
    with torch.inference_mode(), torch.autocast(device.type, torch.float16 if half else torch.bfloat16, enabled=half):
        for _ in range(3): network(x)
        if half: torch.cuda.synchronize()
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            network(x)
            if half: torch.cuda.synchronize()
            done += batch
        return done / (time.perf_counter() - start)


ON_THE_CPU = """
import sys
from image_similarity import SimilarityFinder
finder = SimilarityFinder.load(sys.argv[1])
assert next(finder.encoder.parameters()).device.type == "cpu"
for result in finder.search(sys.argv[2], 5): print(f"{result.probability}\\t{result.path.name}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that it runs")
    parser.add_argument("--pictures", type=int, default=40, help="of each of eight drawn breeds")
    parser.add_argument("--size", type=int, help="of the encoder's input; its own if not given")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available(): sys.exit("There is no GPU that torch can use; --device cpu shows that the script runs.")

    from fastai.torch_core import default_device
    default_device(args.device == "cuda")
    from fastai.callback.fp16 import MixedPrecision

    from image_similarity import SiameseImage, SimilarityFinder, classifier_learner, create_encoder, embed, labelled_images, sample_pets, siamese_learner

    folder = Path(tempfile.mkdtemp())
    data = labelled_images(sample_pets(folder / "pets", n_breeds=8, n_per_breed=args.pictures) / "images", valid_pct=.25)
    encoder, start = create_encoder(size=args.size), time.perf_counter()
    assert next(encoder.parameters()).device.type == args.device
    embedded = embed(data.files, encoder, augment=1, progress=False)
    took = time.perf_counter() - start
    say(f"embedded {data}, twice", start)
    print(f"  {2 * len(data) / took:,.0f} images a second from files", flush=True)
    at_224 = network_speed(encoder, 224, 512 if args.device == "cuda" else 8)
    card = torch.cuda.get_device_name() if args.device == "cuda" else "this CPU, in full precision"
    print(f"  {at_224:,.0f} images a second of 224 pixels by the network alone, on {card}; published by timm: "
          + "; ".join(f"{speed:,} on an {where}" for where, speed in PUBLISHED.items()), flush=True)

    start = time.perf_counter()
    clearn = classifier_learner(data, encoder, embedded, label_smoothing=.1, fp16=True, progress=False)
    slearn = siamese_learner(data, encoder, embedded, epochs=3, fp16=True, progress=False)
    say("trained both heads on vectors", start)
    for learn, name in ((clearn, "classifier"), (slearn, "Siamese network")):
        assert any(isinstance(cb, MixedPrecision) for cb in learn.cbs)
        with learn.no_bar(), learn.no_logging():
            before, start = learn.validate()[1], time.perf_counter()
            learn.fine_tune(1)
            say(f"fine-tuned the {name} in mixed precision", start)
            print(f"  accuracy {before:.3f} before, {learn.validate()[1]:.3f} after", flush=True)
        assert {p.device.type for p in learn.model.parameters()} == {args.device}

    start, query = time.perf_counter(), data.files[data.valid[0]]
    finder = SimilarityFinder(clearn, slearn, [data.files[i] for i in data.train], progress=False)
    found = finder.search(query, 5)
    why, best = finder.explain(found[0]), finder.predict(query, show=False)
    said = slearn.siampredict(SiameseImage(query, found[0].path))[1].item()
    assert abs(said - why.probability) < .02, "the learner and the folded head disagree"
    say(f"searched, explained ({why}), predicted {best.name}", start)

    start, model = time.perf_counter(), finder.save(folder / "model")
    done = subprocess.run([sys.executable, "-c", ON_THE_CPU, model, query], capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    if done.returncode: sys.exit(done.stderr)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    say("saved, loaded in a process without a GPU, and searched", start)
    assert np.allclose([float(p) for p, _ in lines], [r.probability for r in found], atol=.02), (lines, found)
    print("All is well.")


if __name__ == "__main__": main()
