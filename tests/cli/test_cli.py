"""The command line as a user and as a program meets it: what goes where, exit codes, and that it says what the package says."""
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import image_similarity
from image_similarity import Gallery
from image_similarity.cli import commands as cli
from image_similarity.images.labels import guess_labels

pytestmark = pytest.mark.usefixtures("elsewhere", "same_encoder")
COMMANDS = ["train", "match", "import-learner", "find", "evaluate", "export", "index", "duplicates", "clusters", "inspect", "demo", "gallery", "feedback"]


def separately(*args, **options):
    "Run a command in a process of its own."
    return subprocess.run([sys.executable, "-c", "from image_similarity.cli.commands import main; main()", *map(str, args)],
                          capture_output="stdout" not in options, text=True, **options)


def lines(stdout) -> list[tuple[str, Path]]:
    return [(probability, Path(path)) for probability, path, *_ in (line.split("\t") for line in stdout.splitlines())]


# --- help, version, arguments

def test_help_names_every_command(call):
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert [c for c in COMMANDS if re.search(rf"^  {c} ", out, re.MULTILINE)] == COMMANDS
    assert call()[:2] == (0, out)


@pytest.mark.parametrize("command, options", [
    ("train", ["--out", "--labels", "--split", "--exclude", "--arch", "--weights", "--pooling", "--loss", "--fine-tune", "--lr", "--fp16", "--time-limit", "--on"]), ("find", ["--model", "--gallery", "--plus", "--minus", "--like", "--unlike", "--marks", "--region", "--parts", "--top-k", "--candidates", "--coverage", "--where", "--approximate", "--explain", "--words", "--sheet", "--open", "--json"]),
    ("match", ["--out", "--image", "--title", "--attribute", "--same", "--one-to-one", "--least"]), ("import-learner", ["--out", "--images", "--trust", "--labels"]), ("evaluate", ["--labels", "--split", "--json"]), ("export", ["--out"]), ("demo", ["--out"]), ("index", ["--gallery", "--labels", "--exclude", "--arch", "--weights", "--pooling", "--precision", "--model", "--on", "--regions", "--json"]),
    ("duplicates", ["--gallery", "--threshold", "--against", "--prefer", "--protect", "--settled", "--trash", "--hardlink", "--reflink", "--move", "--script", "--dry-run", "--decisions", "--undo", "--report", "--sheet", "--json"]), ("clusters", ["--gallery", "--min-size", "--model", "--sheet", "--json"]),
    ("inspect", ["--against", "--out", "--apply", "--undo", "--sheet", "--json"])])
def test_every_command_explains_its_options(call, command, options):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", out.partition("Options:")[2], re.MULTILINE) == [*options, "--help"]
    assert call(command, "-h")[:2] == (0, out)


def test_version(call):
    assert call("--version") == (0, image_similarity.__version__ + "\n", "")


def test_main_leaves_with_the_code(monkeypatch, capsys):
    for args, code in (["--version"], 0), (["nonsense"], 2):
        monkeypatch.setattr(sys, "argv", ["image_similarity", *args])
        with pytest.raises(SystemExit) as stop: cli.main()
        assert stop.value.code == code


@pytest.mark.parametrize("args, said", [
    (["nonsense"], "nonsense"), (["find"], "QUERY"), (["find", "a.jpg"], "--model"), (["find", "a.jpg", "--model", "m", "--top-k", "0"], "--top-k"),
    (["find", "a.jpg", "--model", "m", "--top-k", "many"], "integer"), (["train", "a", "--out", "m", "--colour"], "--colour"), (["evaluate", "m"], "IMAGES")])
def test_wrong_arguments_are_one_line(call, args, said):
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and said in err and err.count("\n") == 1


@pytest.mark.parametrize("args, help", [(["nonsense"], ""), (["find"], " find"), (["find", "a.jpg", "--top-k", "0"], " find"), (["gallery", "nonsense"], " gallery"),
                                        (["gallery", "export"], " gallery export"), (["find", "--model"], " find"), (["--colour"], "")])
def test_wrong_arguments_point_to_the_help_of_their_command(call, args, help):
    assert call(*args)[2].endswith(f" Try: image_similarity{help} --help\n")


@pytest.mark.parametrize("args, meant", [(["serach"], "find"), (["trian"], "train"), (["gallery", "remvoe"], "remove"), (["find", "a.jpg", "--topk", "3"], "--top-k"),
                                         (["find", "a.jpg", "--galery", "g"], "--gallery")])
def test_what_is_misspelt_is_recognised(call, args, meant):
    code, _, err = call(*args)
    assert code == 2 and re.search(rf"; did you mean (--open or )?{meant}\?", err)


def test_a_condition_that_is_misspelt_is_recognised(call, small):
    label = small.data.classes[0]
    for condition, said in ((f"labl={label}", "where: labl: nothing is known under that name; did you mean label?"),
                            (f"label={label}x", f"{small.model}: no picture matches label={label}x; did you mean {label}?"),
                            ("label=shoe", f"{small.model}: no picture matches label=shoe"), ("colour=red", f"{small.model}: no picture has colour; there is label")):
        for command in (["find", small.query, "--model", small.model], ["find", small.query, "--gallery", small.model], ["gallery", "remove", small.model]):
            code, out, err = call(*command, "--where", condition)
            assert (code, out, err) == (2, "", f"error: {said}\n")


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "image_similarity", "find", "--topk"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and re.search(r"did you mean .*--top-k\? Try: image_similarity find --help", done.stderr)


def test_a_shell_can_complete_commands_and_options():
    def completions(words):
        asked = {"_IMAGE_SIMILARITY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        return subprocess.run([sys.executable, "-m", "image_similarity"], env=os.environ | asked, capture_output=True, text=True).stdout.split()
    assert completions("image_similarity ex") == ["export"]
    assert completions("image_similarity find --mo") == ["--model"]


# --- find

def test_find_prints_probability_and_path_and_nothing_else(call, small, monkeypatch):
    monkeypatch.chdir(small.folder)
    code, out, err = call("find", small.query, "--model", "model", "--top-k", 4)
    wanted = small.finder.search(small.query, 4)
    assert code == 0 and err.splitlines() == [f"no probability: {wanted[0].reason}"] # of four classes there is none
    assert lines(out) == [("?", r.path.relative_to(small.folder)) for r in wanted]


def test_paths_elsewhere_are_whole(call, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = call("find", small.query, "--model", small.model)[1]
    assert [path for _, path in lines(out)] == [r.path for r in small.finder.search(small.query, 5)]


def test_a_model_searches_a_large_gallery_and_keeps_its_rows_beside(call, small, tmp_path, monkeypatch):
    from image_similarity.gallery import pairs as gallery_pairs
    from image_similarity.encoders.encoder import embed
    monkeypatch.setattr(gallery_pairs, "KEPT_FROM", 500)
    rng, finder = np.random.default_rng(0), small.finder
    like = rng.integers(len(finder), size=600)
    rows = (finder.pooled.numpy()[like] * rng.uniform(.7, 1.3, (600, 1)) + rng.normal(0, .05, (600, finder.pooled.shape[1]))).astype(np.float32)
    gallery = Gallery(tmp_path / "large", small.encoder)
    gallery.import_embeddings([f"{i}.jpg" for i in range(600)], rows, [finder.labels[i] for i in like])
    gallery.close()
    def find():
        code, out, err = call("find", small.query, "--model", small.model, "--gallery", tmp_path / "large", "--top-k", 20)
        kept = {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in (tmp_path / "large").rglob("pairs-*/*")}
        assert code == 0 and ("20 of 20 results are not there any more" in err) # there are vectors only
        return [path for _, path in lines(out)], kept
    first, kept = find()
    again, still = find() # another finder, on the rows that the first has left
    assert again == first and still == kept and "ids.bin" in kept

    query, rows = torch.from_numpy(embed([small.query], small.encoder, progress=False).pooled), torch.from_numpy(rows)
    match = finder.scorer.pair_logits(query.expand(600, -1), rows).sigmoid()
    posterior = finder.classes.log_posterior(query)[0][[finder.classes.labels.index(finder.labels[i]) for i in like]]
    wanted = (posterior + match.log()).argsort(descending=True)[:20].tolist()
    assert [path.name for path in first] == [f"{i}.jpg" for i in wanted]


def test_a_model_that_moves_with_its_pictures_finds_them(call, small, tmp_path):
    shutil.copytree(small.folder, tmp_path / "moved")
    out = call("find", small.query, "--model", tmp_path / "moved" / "model")[1]
    assert all(path.is_file() and path.is_relative_to(tmp_path / "moved") for _, path in lines(out))


def test_find_as_json(call, small):
    code, out, err = call("find", small.query, "--model", small.model, "--top-k", 3, "--json")
    found, wanted = json.loads(out), small.finder.search(small.query, 3)
    assert (code, found["query"]) == (0, str(small.query))
    label, probability = small.finder.predicted_class(small.query)
    assert found["predicted"]["label"] == label and found["predicted"]["probability"] == pytest.approx(probability, abs=1e-5)
    assert [(r["rank"], r["label"], Path(r["path"]).name) for r in found["results"]] == [(r.rank, r.label, r.path.name) for r in wanted]
    assert [r["pair_probability"] for r in found["results"]] == pytest.approx([r.pair_probability for r in wanted], abs=1e-5)
    assert [r["score"] for r in found["results"]] == pytest.approx([r.score for r in wanted], abs=1e-4)


def test_explain_draws_the_best_pair(call, small, tmp_path):
    code, out, err = call("find", small.query, "--model", small.model, "--explain", tmp_path / "why.png")
    assert (code, len(lines(out))) == (0, 5) and err.splitlines() == [f"no probability: {small.finder.search(small.query, 1)[0].reason}"]
    small.finder.explain(small.finder.search(small.query, 1)[0]).save(tmp_path / "wanted.png")
    drawn, wanted = (np.asarray(Image.open(tmp_path / name).convert("L"), float) for name in ("why.png", "wanted.png"))
    assert drawn.shape == wanted.shape and np.abs(drawn - wanted).mean() < 1 and drawn.std() > 10


@pytest.mark.parametrize("name, said", [("missing/why.png", "no such folder"), ("why.txt", ".png"), ("why", ".png"), ("folder.png", "is a folder")])
def test_a_figure_that_cannot_be_written_is_refused_first(call, small, tmp_path, name, said):
    (tmp_path / "folder.png").mkdir()
    code, out, err = call("find", "no query.jpg", "--model", "no model", "--explain", tmp_path / name)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err and name.split("/")[0] in err


@pytest.mark.long
def test_find_imports_no_fastai(small):
    code = ("import sys\nfrom image_similarity.cli.commands import run\n"
            f"assert run(['find', {str(small.query)!r}, '--model', {str(small.model)!r}]) == 0\n"
            "print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and len(lines(done.stdout)) == 5
    loaded = done.stderr.split()
    assert "torch" in loaded and not {"fastai", "fastprogress", "pandas", "sklearn", "matplotlib", "IPython"} & set(loaded)


@pytest.mark.soak
def test_a_reader_that_leaves_is_no_error(small):
    read, write = os.pipe()
    os.close(read)
    done = separately("find", small.query, "--model", small.model, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and done.stderr.startswith("no probability: ")


# --- what goes wrong

def test_ctrl_c_is_one_line(call, small, monkeypatch):
    def interrupted(*_): raise KeyboardInterrupt
    monkeypatch.setattr(image_similarity.SimilarityFinder, "load", interrupted)
    assert call("find", small.query, "--model", small.model) == (130, "", "stopped\n")


@pytest.mark.parametrize("error", [ValueError("no\nway"), TypeError("no way"), FileNotFoundError("no way"), ImportError("no way"),
                                   PermissionError("no way"), image_similarity.ImageError(None, "no way")])
def test_errors_are_one_line(call, small, monkeypatch, error):
    def fails(*_): raise error
    monkeypatch.setattr(image_similarity.SimilarityFinder, "load", fails)
    code, out, err = call("find", small.query, "--model", small.model)
    assert (code, out) == (2, "") and re.fullmatch(r"error: (image: )?no way\n", err)


def test_a_mistake_of_ours_is_not_hidden(call, small, monkeypatch):
    def broken(*_): raise AssertionError("a mistake")
    monkeypatch.setattr(image_similarity.SimilarityFinder, "load", broken)
    with pytest.raises(AssertionError): call("find", small.query, "--model", small.model)


def test_our_warnings_are_one_line_once_and_those_of_libraries_none(call, small, monkeypatch):
    said = {}
    def warns(*_):
        for _ in range(2): warnings.warn_explicit("mind\nthe gap", UserWarning, "finder.py", 1, module="image_similarity.finder.finder", registry=said)
        warnings.warn_explicit("torch is torch", UserWarning, "x.py", 1, module="torch.x")
        warnings.warn_explicit("old", DeprecationWarning, "finder.py", 1, module="image_similarity.finder.finder")
        return small.finder
    monkeypatch.setattr(image_similarity.SimilarityFinder, "load", warns)
    code, out, err = call("find", small.query, "--model", small.model)
    reason = small.finder.search(small.query, 1)[0].reason # of four classes there is no probability
    assert (code, len(lines(out)), err) == (0, 5, f"warning: mind the gap\nno probability: {reason}\n")


# --- train and evaluate

def figures(text) -> dict[str, float]:
    "The table of figures that `train` and `evaluate` print."
    return {name.strip(): float(value) for name, value in re.findall(r"^  (\S.*?)  +([\d.]+) \[", text, re.MULTILINE)}


def test_train_then_find_then_evaluate(call, small, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small.images, "my pets")
    (tmp_path / "my pets" / "Bengal_99.jpg").write_bytes(b"no picture")
    (tmp_path / "my pets" / "notes.txt").write_text("not a picture either")
    code, out, err = call("train", "my pets", "--out", "models/mine")
    assert code == 0 and len(figures(out)) == 6
    assert re.search(r"^skipped: my pets/Bengal_99.jpg: not an image", err, re.MULTILINE) and "notes" not in err
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["mine"]
    assert "epoch" not in out and "epoch" not in err

    found = call("find", "my pets/" + small.query.name, "--model", "models/mine")[1]
    assert all(path.is_file() and path.parts[0] == "my pets" for _, path in lines(found))

    code, measured, err = call("evaluate", "models/mine", "my pets")
    assert code == 0 and "not asked about" in err
    assert figures(measured) == figures(out) # the pictures that training held out


def test_train_takes_labels_and_split_from_a_csv(call, small, quick, tmp_path):
    shutil.copytree(small.images, tmp_path / "pets")
    names = sorted(p.name for p in (tmp_path / "pets").iterdir())
    for i, name in enumerate(names): (tmp_path / "pets" / name).rename(tmp_path / "pets" / f"{i:03}.jpg")
    rows = [f"{i:03}.jpg,{name.rpartition('_')[0]},{'test' if i % 4 == 0 else 'train'}" for i, name in enumerate(names)]
    (tmp_path / "all.csv").write_text("\n".join(["file,label,split", *rows]))
    table = ["--labels", tmp_path / "all.csv", "--split", tmp_path / "all.csv"]
    code, out, err = call("train", tmp_path / "pets", "--out", tmp_path / "model", *table)
    assert code == 0 and "8 held out" in err and out.startswith("8 images")
    assert [f.stem for f in Gallery(tmp_path / "model").files] == [f"{i:03}" for i in range(len(names)) if i % 4]

    code, measured, _ = call("evaluate", tmp_path / "model", tmp_path / "pets", *table, "--json")
    measured = json.loads(measured)
    assert (code, measured["n_images"]) == (0, 8)
    assert [round(f["value"], 3) for f in measured["figures"].values()] == list(figures(out).values())


@pytest.mark.soak
def test_an_encoder_that_learned_is_found_and_measured_like_any_other(call, small, quick, tmp_path):
    code, out, err = call("train", small.images, "--out", tmp_path / "model", "--loss", "contrastive", "--fine-tune", "1", "--lr", "0.001", "--fp16", "--time-limit", "600")
    assert code == 0 and "a feature layer by contrastive, and fine-tuning" in err and re.search("^fine-tuned.*held-out pictures", err, re.MULTILINE)
    assert "epoch" not in out and len(figures(out)) == 6
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["encoder"]["bodies"] == ["features"] and (tmp_path / "model" / manifest["encoder"]["weights"]).is_file()
    code, found, _ = call("find", small.query, "--model", tmp_path / "model")
    assert code == 0 and len(lines(found)) == 5
    code, measured, _ = call("evaluate", tmp_path / "model", small.images)
    assert code == 0 and figures(measured) == pytest.approx(figures(out), abs=.02)


@pytest.mark.parametrize("args, said", [
    (["--lr", "0.1"], "--lr: is for fine-tuning; add --fine-tune EPOCHS"), (["--fp16"], "--fp16: is for"), (["--loss", "triplet", "--time-limit", "5"], "--time-limit: is for"),
    (["--loss", "triple"], "choose one of contrastive"), (["--fine-tune", "1", "--lr", "0"], "lr=0.0: give a number above 0"), (["--fine-tune", "1", "--time-limit", "-1"], "above 0")])
def test_options_of_fine_tuning_are_refused_before_any_work(call, tmp_path, args, said):
    code, out, err = call("train", tmp_path / "no pictures", "--out", tmp_path / "model", *args)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err


def test_folders_give_labels_when_there_are_several(small, tmp_path):
    for path in small.images.iterdir():
        (tmp_path / path.name.rpartition("_")[0]).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.name.rpartition("_")[0] / f"IMG_{path.stem.rpartition('_')[2]}.jpg")
    assert guess_labels(tmp_path, None) == "folder"
    assert guess_labels(tmp_path, "name") == "name"
    assert guess_labels(small.images, None) == "name"


def test_evaluate_as_json_says_what_the_package_says(call, small):
    code, out, _ = call("evaluate", small.model, small.images, "--json")
    wanted = image_similarity.finder.evaluation.evaluate(small.finder, small.data, small.embedded).to_dict()
    found = json.loads(out)
    assert code == 0 and found["n_images"] == wanted["n_images"] == 8
    for name, figure in wanted["figures"].items(): assert found["figures"][name] == pytest.approx(figure, abs=1e-4)


def test_evaluate_warns_when_all_pictures_are_known(call, small, tmp_path):
    for file in small.finder.files: shutil.copy(file, tmp_path)
    code, out, err = call("evaluate", small.model, tmp_path)
    assert code == 0 and err.startswith("warning: all 24 pictures are in the model's gallery") and err.count("\n") == 1
    assert out.startswith("24 images")


def test_train_refuses_a_place_that_is_something_else_at_once(call, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    code, out, err = call("train", tmp_path / "no pictures", "--out", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1) and "not a model folder" in err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


# --- demo

@pytest.mark.soak
def test_demo_twice(call, quick, tmp_path, monkeypatch):
    from image_similarity.finder import demo
    whole = demo.run_demo
    monkeypatch.setattr(demo, "run_demo", lambda out: whole(out, n_breeds=4, n_per_breed=6))
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    Path("demo/mine.txt").write_text("keep this")
    code, out, err = call("demo")
    assert code == 0 and len(figures(out)) == 6 and "epoch" not in out
    made = sorted(p.name for p in Path("demo").iterdir())
    assert made == ["explanation.png", "mine.txt", "model", "result.png", "sample_pets"]
    for picture in ("result.png", "explanation.png"): assert np.asarray(Image.open(f"demo/{picture}").convert("L")).std() > 10

    commands = [line.split() for line in out.splitlines() if line.startswith("  image_similarity")]
    for command in commands[:2]:
        assert call(*command[1:])[0] == 0
    assert Path("demo/why.png").exists()

    code, again, _ = call("demo")
    assert code == 0 and figures(again) == figures(out)
    assert Path("demo/mine.txt").read_text() == "keep this"
    assert sorted(p.name for p in Path("demo").iterdir()) == sorted([*made, "why.png"])


def test_demo_refuses_a_folder_that_is_something_else(call, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").touch()
    code, out, err = call("demo", "--out", tmp_path)
    assert (code, out) == (2, "") and err.startswith("error: ") and "not a model folder" in err
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
