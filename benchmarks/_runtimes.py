"""The encoder's speed: from JPEG files to `pooled`, beside the runtimes that could compute it, and `find` from a cold shell.

Used by gallery.py. The peers get the same encoder with its pooling, and the pictures as tensors that are ready in memory, in the batch
size that suits each best; ours gets the files. All take turns in one process, on as many threads as torch uses.
"""
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from _report import interval, row, seconds
from torch import nn

from image_similarity.images.datasets import labelled_images
from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.encoder import create_encoder, embed, pool, pooled_of, runtime_for
from image_similarity.encoders.preprocessing import preprocess, to_pixels
from image_similarity.gallery.gallery import Gallery
from image_similarity.images.listing import image_files
from image_similarity.finder.training import fit_finder

TOLERANCE = 1e-4  # relative to the largest number, where that is above 1


class Pooled(nn.Module):
    "The network that every runtime computes."

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        return pool(self.encoder(x))


# Each peer makes, of a network and the shape of a picture, a function that gives `pooled` of a list of batches.

def eager(network, shape):
    network = network.to(memory_format=torch.channels_last)

    def run(batches):
        with torch.inference_mode():
            return [network(x.contiguous(memory_format=torch.channels_last)).numpy() for x in batches]
    return run


def torch_compile(network, shape):
    return eager(torch.compile(network.to(memory_format=torch.channels_last), dynamic=False), shape)


def onnxruntime(network, shape):
    import onnxruntime as runtime
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = f"{folder}/encoder.onnx"
        torch.onnx.export(network, (torch.zeros(2, *shape),), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}, opset_version=17)
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda batches: [session.run(None, {"x": x.numpy()})[0] for x in batches]


def _openvino(network, shape, hint):
    import openvino as runtime
    model = runtime.convert_model(network, example_input=torch.zeros(2, *shape), input=[-1, *shape])
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    return runtime.AsyncInferQueue(runtime.compile_model(model, "CPU", settings))


def openvino_latency(network, shape):
    "One picture or batch after the other, each on all threads."
    queue = _openvino(network, shape, "LATENCY")
    return lambda batches: [queue[0].infer([x.numpy()], share_inputs=True)[0].copy() for x in batches]


def openvino_throughput(network, shape):
    "As many at once as OpenVINO thinks best."
    queue, found = _openvino(network, shape, "THROUGHPUT"), {}
    queue.set_callback(lambda request, i: found.__setitem__(i, request.get_output_tensor(0).data.copy()))

    def run(batches):
        for i, x in enumerate(batches):
            queue.start_async([x.numpy()], i)
        queue.wait_all()
        return [found[i] for i in range(len(batches))]
    return run


PEERS = {"eager": (eager, (1, 4, 16)), "torch_compile": (torch_compile, (16,)), # which compiles anew for each size of a batch
         "onnxruntime": (onnxruntime, (1, 4, 16)), "openvino_latency": (openvino_latency, (1, 4, 16)),
         "openvino_throughput": (openvino_throughput, (1, 4, 16))}


def peer_arms(encoder, pictures: torch.Tensor) -> dict:
    "Each peer that can be had, on all pictures, in its best batch size; their numbers are compared with torch's on the way."
    with torch.inference_mode():
        expected = pool(encoder(pictures[:16])).numpy()
    arms = {}
    for name, (make, sizes) in PEERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run = make(Pooled(create_encoder(encoder.name, size=encoder.size)).eval(), tuple(pictures.shape[1:]))
                trials = {size: pictures[:16].split(size) for size in sizes}
                for batches in trials.values():
                    difference = np.abs(np.concatenate(run(batches)) - expected).max()
                    assert difference <= TOLERANCE * max(1, np.abs(expected).max()), f"{name} is off by {difference}"
        except (ImportError, RuntimeError) as e:  # not installed, or no compiler
            print(f"{name} is left out: {e}", file=sys.stderr)
            continue
        best = min(sizes, key=lambda size: min(seconds(lambda: run(trials[size])) for _ in range(3)))
        arms[f"{name}, {best} at a time"] = lambda run=run, batches=pictures.split(best): run(batches)
    return arms


def in_turns(arms: dict, repeats: int) -> dict[str, np.ndarray]:
    "Seconds of each, `repeats` times in turns, after one round that does not count."
    times = {name: [] for name in arms}
    for n in range(repeats + 1):
        for name, work in arms.items():
            took = seconds(work)
            if n:
                times[name].append(took)
    return {name: np.array(found) for name, found in times.items()}


def into_gallery(files: list[Path], encoder) -> None:
    "From files to `pooled` on disk, in a gallery of their own."
    with tempfile.TemporaryDirectory() as folder:
        Gallery(Path(folder) / "gallery", encoder=encoder).add(files, progress=False)


def read_all(files: list[Path], encoder) -> None:
    "From files to tensors, on as many threads as the encoder has."
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda file: preprocess(file, encoder), files))


def embed_rows(files: list[Path], repeats: int, size: int | None = None) -> list[dict]:
    "Ours from the files beside the peers on ready tensors; `size` is that of the encoder's input, None for its own."
    encoder = create_encoder(size=size)
    pictures, pixels = (torch.stack([look(file, encoder) for file in files]) for look in (preprocess, to_pixels))
    embed(files * (1 + 128 // len(files)), encoder, progress=False)  # so that it is converted
    arms = {"files": lambda: into_gallery(files, encoder), "reading": lambda: read_all(files, encoder), "ours": lambda: pooled_of(encoder, pixels), **peer_arms(encoder, pictures)}
    times = in_turns(arms, repeats)
    peers = {name: took for name, took in times.items() if name not in ("files", "reading", "ours")}
    best = min(peers, key=lambda name: np.median(peers[name]))
    against = f"{best}, of {encoder.name} at {encoder.size}; ours: {runtime_for(encoder)}; {len(files)} photos, {torch.get_num_threads()} threads"
    limit = interval(peers[best] / (peers[best] + times["reading"]))
    rows = [row("embed_vs_best_runtime", *interval(peers[best] / times["files"]), goal=0.85, against=f"{against}; reading the files on the same threads leaves {limit[0]:.2f} at most"),
            row("embed_limit", *limit, against=f"{best} alone; here with opening, resizing and normalising the files before it, on all threads"),
            row("runtime_vs_best_runtime", *interval(peers[best] / times["ours"]), against=f"{best}; both on ready tensors"),
            row("embed_images_per_second", *interval(len(files) / times["files"]))]
    return rows + [row(f"embed_vs_{name.split(',')[0]}", *interval(took / times["files"]), against=name) for name, took in peers.items()]


COLD = [sys.executable, "-c", "import torch, timm"]
FIND = [sys.executable, "-c", "from image_similarity.cli.commands import main; main()", "find"]


def cold_rows(repeats: int, size: int | None = None) -> list[dict]:
    "`find --model` as a process of its own, beside one that imports torch and timm. The encoder has been converted before, by `embed_rows`."
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images = sample_pets(folder / "pets", n_breeds=4, n_per_breed=8) / "images"
        data = labelled_images(images, valid_pct=0.25)
        model = fit_finder(data, create_encoder(size=size), augment=1, epochs=1)[0].save(folder / "model")
        commands = {"imports": COLD, "find": [*FIND, str(data.files[data.valid[0]]), "--model", str(model)]}
        times = in_turns({name: lambda c=c: subprocess.run(c, check=True, stdout=subprocess.DEVNULL) for name, c in commands.items()}, repeats)
    return [row("cold_model_find_ratio", *interval(times["find"] / times["imports"]), goal=1.5, better="lower", against="python -c 'import torch, timm'"),
            row("cold_model_find_seconds", *interval(times["find"]), better="lower")]


def runtime_rows(data: Path, repeats: int = 7, n_files: int = 160, size: int | None = None) -> list[dict]:
    "All rows; `data` holds pets/images."
    return embed_rows(image_files(Path(data) / "pets" / "images")[:n_files], repeats, size) + cold_rows(repeats, size)
