"""Rows of a Siamese head in files: the same search as in memory, whatever happened while they were written."""
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_search import made_up_pooled, made_up_scorer

from image_similarity.scoring import files as pair_files
from image_similarity.scoring.files import extend_pair_files, open_pair_files, scorer_key
from image_similarity.scoring.search import pair_index

POOLED, QUERIES = made_up_pooled(3000), made_up_pooled(5, seed=1)


def assert_same_search(scorer, folder, n):
    "The files and an index in memory find the same; a row made among others may differ in its last bit."
    kept, made = open_pair_files(scorer, folder), pair_index(scorer, POOLED[:n])
    assert len(kept) == n
    for query in QUERIES:
        found, expected = kept.search(query, 10), made.search(query, 10)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_allclose(kept.logits(query), made.logits(query), rtol=0, atol=1e-5)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("cosine", [3., 0.])
def test_files_that_grow_are_the_index_in_memory(tmp_path, symmetric, cosine):
    scorer, n = made_up_scorer(cosine=cosine, symmetric=symmetric), 0
    for more in (1, 40, 0, 300, 100, 1500):
        n = extend_pair_files(scorer, tmp_path, np.array_split(POOLED[n:n + more], 3))
        assert_same_search(scorer, tmp_path, n)
    assert n == 1941
    assert open_pair_files(scorer, tmp_path).items is not None


def test_an_empty_folder_of_rows_can_be_searched(tmp_path):
    assert extend_pair_files(made_up_scorer(), tmp_path, []) == 0
    assert len(open_pair_files(made_up_scorer(), tmp_path).search(QUERIES[0])) == 0


def test_the_grid_is_fitted_anew_when_the_gallery_has_doubled(tmp_path):
    scorer, fitted = made_up_scorer(), []
    for n in (100, 150, 199, 200, 399, 401):
        done = json.loads((tmp_path / "index.json").read_text())["items"] if fitted else 0
        extend_pair_files(scorer, tmp_path, [POOLED[done:n]])
        fitted.append(json.loads((tmp_path / "index.json").read_text())["fitted"])
        assert sorted(p.name for p in tmp_path.glob("codes*")) == [f"codes-{fitted[-1]}.bin"]
        assert_same_search(scorer, tmp_path, n)
    assert fitted == [100, 100, 100, 200, 200, 401]


KILLED = """
import os, sys, numpy as np
from safetensors.torch import load_file
from image_similarity.scoring import files as pair_files
from image_similarity.scoring import scorers
write, left = pair_files._append, int(sys.argv[2])
def append(*args):
    global left
    left -= 1
    if left < 0: os.kill(os.getpid(), 9)
    write(*args)
pair_files._append = append
pair_files.extend_pair_files(scorers.PairScorer(**load_file("scorer")), sys.argv[1], np.array_split(np.load("more.npy"), 3))
"""


@pytest.mark.parametrize("writes, until", [(4, 900), *(pytest.param(*more, marks=pytest.mark.soak) for more in [(11, 900), (9, 1500), (11, 1500)])])
def test_a_process_killed_while_it_writes_loses_only_what_it_was_adding(tmp_path, writes, until):
    scorer, folder = made_up_scorer(), tmp_path / "rows"
    extend_pair_files(scorer, folder, [POOLED[:500]])
    save_file(scorer.tensors(), tmp_path / "scorer")
    np.save(tmp_path / "more", POOLED[500:until])
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(writes)], cwd=tmp_path, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert_same_search(scorer, folder, 500)
    extend_pair_files(scorer, folder, [POOLED[500:800], POOLED[800:1500]])
    assert_same_search(scorer, folder, 1500)


def test_who_has_an_index_open_keeps_what_there_was(tmp_path):
    scorer = made_up_scorer()
    extend_pair_files(scorer, tmp_path, [POOLED[:500]])
    kept = open_pair_files(scorer, tmp_path)
    before = [kept.search(query).ids for query in QUERIES]
    extend_pair_files(scorer, tmp_path, [POOLED[500:]])
    assert len(kept) == 500
    np.testing.assert_array_equal([kept.search(query).ids for query in QUERIES], before)


def test_a_scorer_with_other_numbers_has_another_key():
    scorer = made_up_scorer()
    others = [replace(scorer, **{name: getattr(scorer, name) + 1e-3}) for name in ("A", "B", "b", "w", "a", "c")] + [replace(scorer, symmetric=False)]
    assert scorer_key(scorer) == scorer_key(made_up_scorer())
    assert len({scorer_key(s) for s in [scorer, *others]}) == 8


@pytest.mark.parametrize("name", ["query.bin", "gallery.bin", "unit.bin", "codes-500.bin", "shift-500.bin", "margin-500.bin"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_files_are_refused(tmp_path, name, damage):
    scorer, path = made_up_scorer(), tmp_path / name
    extend_pair_files(scorer, tmp_path, [POOLED[:500]])
    if damage == "gone":
        path.unlink()
    else:
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size - 1)
    with pytest.raises(ValueError, match=f"{name}: .* delete the folder"):
        open_pair_files(scorer, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"items": 3}', "\0"])
def test_a_damaged_list_is_refused(tmp_path, text):
    extend_pair_files(made_up_scorer(), tmp_path, [POOLED[:10]])
    (tmp_path / "index.json").write_text(text)
    for use in (open_pair_files, lambda *args: extend_pair_files(*args, [])):
        with pytest.raises(ValueError, match="delete the folder"):
            use(made_up_scorer(), tmp_path)


def test_rows_of_another_scorer_are_refused(tmp_path):
    extend_pair_files(made_up_scorer(), tmp_path, [POOLED[:10]])
    other = made_up_scorer(seed=1)
    for use in (open_pair_files, lambda *args: extend_pair_files(*args, [POOLED[:10]])):
        with pytest.raises(ValueError, match="another scorer"):
            use(other, tmp_path)


def test_rows_that_are_not_finite_leave_the_files_as_they_were(tmp_path):
    scorer, bad = made_up_scorer(), torch.tensor(POOLED[:7]).clone()
    bad[5, 2] = torch.nan
    extend_pair_files(scorer, tmp_path, [POOLED[:100]])
    with pytest.raises(ValueError, match="row 15 of pooled"):
        extend_pair_files(scorer, tmp_path, [POOLED[100:110], bad])
    assert_same_search(scorer, tmp_path, 100)


def test_only_what_is_scanned_is_in_memory(tmp_path, monkeypatch):
    loaded = []
    read = np.fromfile
    monkeypatch.setattr(pair_files.np, "fromfile", lambda path, *args: loaded.append(Path(path).stem.split("-")[0]) or read(path, *args))
    extend_pair_files(made_up_scorer(), tmp_path, [POOLED[:50]])
    loaded.clear()
    open_pair_files(made_up_scorer(), tmp_path)
    assert loaded == ["codes", "shift", "margin"]
