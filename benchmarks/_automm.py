"""The real AutoMM, on tables and an encoder of ours. It wants other versions than we do, so it runs in an environment of its own, as a process of its own:

    python3.11 -m venv automm && . automm/bin/activate
    pip install "setuptools<81" torch==2.14.1 torchvision==0.29.1
    pip install "numpy<2.6" "scipy<1.19" "pandas<2.4" "pyarrow<25" "scikit-learn<1.10" "Pillow<13" tqdm boto3 "lightning<2.7" "transformers[sentencepiece]<5.15,>=5.3" \
        "accelerate<2" requests "jsonschema<4.24" "seqeval<1.3" "evaluate<0.5" "timm<1.0.7" "scikit-image<0.26" text-unidecode "torchmetrics<1.8" "omegaconf<2.4" \
        "pytorch-metric-learning<2.9" "nlpaug<1.2" "nltk<3.11" "openmim<0.4" "defusedxml<0.7.2" jinja2 tensorboard nvidia-ml-py3 networkx matplotlib dill psutil joblib pytesseract pdf2image
    pip install --no-deps autogluon.multimodal==1.6.3 autogluon.core==1.6.3 autogluon.common==1.6.3 autogluon.features==1.6.3

Its metadata asks for torch below 2.14, hence --no-deps. Then `python benchmarks/pairs.py --automm automm/bin/python`. This file runs in either environment: it imports
AutoMM where it is the program, and nothing of it where it is imported.

    automm/bin/python benchmarks/_automm.py FOLDER   # train.csv, test.csv, encoder/ and asked.json in it; writes answer.json
"""
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 32 # of its own 128, a table of 500 pairs has four steps an epoch, and nothing is learned
VARIABLE = "AUTOMM_PYTHON" # where it may be said once which interpreter has AutoMM


def interpreter(given: Path | None) -> Path | None:
    "The Python that has AutoMM; None, with the reason on stderr, where there is none."
    found = given or (Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None)
    if found is not None and found.is_file(): return found
    why = f"{found}: there is no such interpreter" if found else f"neither --automm nor ${VARIABLE} says where it is installed"
    print(f"the real AutoMM is skipped ({why}); what it answered before is taken", file=sys.stderr)
    return None


def ask(python: Path, train, asked, encoder, seconds: float | None = None, epochs: int = 10, seed: int = 0) -> dict:
    """What AutoMM says about pairs, after learning from others, with our encoder.

    `train`, `asked`: frames with Image1, Image2, Label, whole paths; `seconds`: its time limit; None: as long as `epochs` and its patience take.
    Gives `probability` of each pair asked about, `seconds` that its fit took, and `validation`: its own held-out AUC, each time that it rose."""
    import torch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "encoder").mkdir()
        torch.save({key.removeprefix("body."): value for key, value in encoder.state_dict().items()}, folder / "encoder" / "pytorch_model.bin")
        (folder / "encoder" / "config.json").write_text(json.dumps({"architecture": encoder.name, "num_classes": 0, "pretrained_cfg": {
            "input_size": [3, encoder.size, encoder.size], "mean": list(encoder.mean), "std": list(encoder.std)}}))
        train.to_csv(folder / "train.csv", index=False)
        asked.to_csv(folder / "test.csv", index=False)
        (folder / "asked.json").write_text(json.dumps({"seconds": seconds, "epochs": epochs, "seed": seed, "size": encoder.size}))
        surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ran = subprocess.run([python, __file__, folder], env=surroundings, capture_output=True, text=True, check=False)
        if ran.returncode: raise SystemExit(f"AutoMM failed: {ran.stderr[-2000:]}")
        rose = re.findall(r"'val_\w+' reached ([0-9.]+)", ran.stdout + ran.stderr)
        return {**json.loads((folder / "answer.json").read_text()), "validation": [float(auc) for auc in rose]}


def fingerprint(*tables) -> str:
    "Of tables, wherever the photos lie."
    rows = [[os.path.basename(cell) if isinstance(cell, str) else cell for cell in row] for table in tables for row in table.to_numpy().tolist()]
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def answers(name: str, kept: Path, python: Path | None, train, asked, encoder, seconds: float | None = None, epochs: int = 10, seeds=(0,)) -> list[dict]:
    """What AutoMM says, or said when it was here: an answer a seed, as `ask` gives it, kept in a file under a name. None where it was never asked about these tables."""
    known, tables = json.loads(kept.read_text()) if kept.is_file() else {}, fingerprint(train, asked)
    if python is None: return known[name]["answers"] if known.get(name, {}).get("tables") == tables else []
    found = [ask(python, train, asked, encoder, seconds, epochs, seed) for seed in seeds]
    for answer in found: answer["probability"] = [round(p, 6) for p in answer["probability"]]
    kept.write_text(json.dumps({**known, name: {"tables": tables, "answers": found}}))
    return found


def main(folder: Path) -> None:
    import pandas as pd
    from autogluon.multimodal import MultiModalPredictor # pyright: ignore[reportMissingImports] (of the other environment)
    asked = json.loads((folder / "asked.json").read_text())
    train, test = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")
    predictor = MultiModalPredictor(problem_type="image_similarity", query="Image1", response="Image2", label="Label", match_label=1, eval_metric="auc",
                                    path=str(folder / "model"), verbosity=3)
    start = time.monotonic()
    predictor.fit(train, time_limit=asked["seconds"], seed=asked["seed"], hyperparameters={
        "model.timm_image.checkpoint_name": str(folder / "encoder"), "model.timm_image.image_norm": "inception", "model.timm_image.image_size": asked["size"],
        "optim.max_epochs": asked["epochs"], "env.batch_size": BATCH, "env.num_gpus": 0, "env.num_workers": 0, "env.num_workers_inference": 0, "env.precision": 32})
    seconds = time.monotonic() - start
    answer = {"probability": predictor.predict_proba(test)[1].tolist(), "seconds": seconds}
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__": main(Path(sys.argv[1]))
