"""Run notebooks, three at a time on two cores, since some of the time is waiting: run_notebooks.py [--long | --not-long] [NOTEBOOK or FOLDER]...

As `nbdev-test` does, which takes one path and goes from the first to the last: here the last go first, since the tutorials are the
longest, and one that is begun at the end keeps one core busy and the other idle.
"""
import multiprocessing
import os
import re
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from nbdev.config import get_config  # noqa: E402, after the number of threads
from nbdev.doclinks import nbglob  # noqa: E402
from nbdev.test import test_nb  # noqa: E402

# 7 to 60 s each: stories whose chapters run anyway, and chapters that train, or start processes, to show what tests/ asserts as well;
# not the heart of the house (encoder, gallery, finder).
LONG = {"cli/commands", "encoders/networks", "encoders/text_image", "explain/faithfulness", "explain/maps", "finder/demo",
        "finder/evaluation", "finder/inspection", "finder/onnx_export", "finder/training", "gallery/groups", "gallery/part_search",
        "learners/classifier", "learners/digit_pairs", "learners/encoder_tuning", "learners/fastai_import", "learners/metric_learning",
        "learners/siamese", "learners/siamese_data", "matching/image_fit", "matching/image_matcher", "matching/image_model",
        "matching/image_training", "matching/image_tuning", "matching/predictor", "matching/text_training", "matching/text_tuning",
        "products/matcher", "service/client", "service/job_runner", "service/job_work", "tutorials/coverage", "tutorials/image_text",
        "tutorials/many_machines", "tutorials/mnist_siamese", "tutorials/pets", "tutorials/product_pairs", "tutorials/products",
        "tutorials/serve", "tutorials/your_own_images"} # whatever their numbers


def notebooks(paths: list[str], root: Path) -> list[Path]:
    "All below the paths, in the order in which to run them."
    only_long, without_long, paths = "--long" in paths, "--not-long" in paths, [path for path in paths if path not in ("--long", "--not-long")]
    found = {Path(file).absolute() for path in paths or [None] for file in nbglob(path)}
    if only_long or without_long:
        long = {file for file in found if re.sub(r"\b\d\d_", "", str(file.relative_to(root).with_suffix(""))) in LONG}
        if len(long) != len(LONG): sys.exit(f"run_notebooks.py says that {', '.join(sorted(LONG))} take long, and there are other notebooks now.")
        found = long if only_long else found - long
    if not found: sys.exit(f"There are no notebooks in {' '.join(paths)}.")
    return sorted(found, reverse=True)


def run(notebook: Path) -> tuple[bool, float]:
    "Whether it passes, and the seconds that it takes; what is wrong with it goes to stderr."
    config, start = get_config(), time.monotonic()
    with warnings.catch_warnings(): # a notebook that silences warnings does so for itself: the next one runs in this process
        passed, _ = test_nb(notebook, skip_flags=str(config.tst_flags).split(), basepath=config.config_path)
    sys.stdout.flush()
    return passed, time.monotonic() - start


def main(paths: list[str]) -> None:
    root, start, failed, took = get_config().nbs_path.absolute(), time.monotonic(), [], {}
    files = notebooks(paths, root)
    os.chdir(root)
    with ProcessPoolExecutor(int(os.environ.get("WORKERS", 3)), mp_context=multiprocessing.get_context("fork")) as workers:
        running = {workers.submit(run, file): file for file in files}
        for done in as_completed(running):
            passed, seconds = done.result()
            name = str(running[done].relative_to(root))
            took[name] = seconds
            if not passed: failed.append(name)
    for name in sorted(took, key=took.get, reverse=True)[:15]: print(f"{took[name]:6.1f} s {name}")
    print(f"{len(files) - len(failed)} of {len(files)} notebooks ran, in {time.monotonic() - start:.0f} s.")
    if failed: sys.exit("These did not: " + ", ".join(sorted(failed)))


if __name__ == "__main__":
    import run_notebooks # by its name: a notebook takes the place of `__main__` in the process that runs it, and `run` is looked up there again
    run_notebooks.main(sys.argv[1:])
