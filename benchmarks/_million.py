"""As many rows as are wanted that look like `pooled` of photos: from _million import realistic_rows, realistic_blocks

    rows = realistic_rows(100_000)                 # (100_000, 2560) float32
    for block in realistic_blocks(1_000_000): ...  # blocks of 10,000 rows, 100 MB each; the first rows are those of `realistic_rows`
"""
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from _data import PHOTOS
from image_similarity.encoders.encoder import create_encoder, embed, fingerprint
from image_similarity.images.opening import image_files
from image_similarity.metrics.similarity import normalize, similarity, top_k

BLOCK = 10_000
FOLDERS = ["imagenet_sample", "clothing", "pets/images"]  # folders of the data, 2,544 photos


def photo_pooled(data=PHOTOS) -> np.ndarray:
    "(photos, 2·nf): `pooled` of every photo in `FOLDERS`; kept in the temporary folder."
    encoder = create_encoder()
    folders = [folder for name in FOLDERS if (folder := Path(data) / name).is_dir()]
    if not folders: raise FileNotFoundError(f"{data}: holds none of {', '.join(FOLDERS)}")
    files = [file for folder in folders for file in image_files(folder)]
    kept = Path(tempfile.gettempdir()) / f"photos-{len(files)}-{fingerprint(encoder)}.npy"
    if not kept.exists():
        beside = kept.with_suffix(".part.npy")
        np.save(beside, embed(files, encoder).pooled)
        beside.replace(kept)
    return np.load(kept)


def neighbours(pooled: np.ndarray, k: int = 8) -> np.ndarray:
    "(photos, k): the photos nearest to each, by cosine of the embedding, itself left out."
    unit = normalize(pooled[:, pooled.shape[1] // 2:])
    cosine = similarity(unit, unit)
    np.fill_diagonal(cosine, -np.inf)
    return top_k(cosine, k)[0]


def jitter_basis(pooled: np.ndarray, near: np.ndarray, rank: int = 256) -> np.ndarray:
    "(rank, 2·nf): `z @ basis` with `z` standard normal varies as a photo and its neighbours do: same directions, same spectrum."
    difference = pooled[near].reshape(-1, pooled.shape[1]) - np.repeat(pooled, near.shape[1], axis=0)
    difference = difference[np.random.default_rng(0).permutation(len(difference))[:4096]]
    variance, directions = np.linalg.eigh(difference.T @ difference / len(difference))
    return np.sqrt(variance[::-1][:rank, None]) * directions.T[::-1][:rank]


@lru_cache
def photo_model(data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "`pooled` of photos, the neighbours of each, and how they differ: what rows are made from."
    pooled = photo_pooled(data)
    near = neighbours(pooled)
    return pooled, near, jitter_basis(pooled, near)


def realistic_blocks(n: int, seed: int = 0, data=PHOTOS) -> Iterator[np.ndarray]:
    """`n` rows in blocks of `BLOCK`; block after block the same for the same seed, however many are asked for.

    A row begins at a photo, drawn at random. It goes a random part of the way, at most half, to one of the photo's eight nearest
    neighbours, as if there were a picture in between. Then it gets a Gaussian jitter that has the directions and the spectrum of the
    differences between neighbours, half as large; its length varies with the gamma law from row to row, so that some rows are near
    copies and others are not. What falls below 0 becomes 0, since the numbers come from ReLU6; at most 6 for the same reason.

    Of the embeddings (means, length 1) of 2,544 photos and as many rows: the ten largest of 1,280 principal components hold 0.22 and 0.24 of
    the variance, 256 of them 0.76 and 0.83; the participation ratio of the spectrum is 101 and 87; the median cosine of two is 0.22 and 0.32,
    of one and its nearest 0.64 and 0.85, which rises to 0.93 among 20,000 rows, as it does where a gallery has many pictures of a thing."""
    pooled, near, basis = photo_model(str(data))
    for block, start in enumerate(range(0, n, BLOCK)):
        rng = np.random.default_rng((seed, block))
        photo, which = rng.integers(len(pooled), size=BLOCK), rng.integers(near.shape[1], size=BLOCK)
        way = rng.uniform(0, 0.5, (BLOCK, 1)).astype(np.float32)
        size = 0.5 * rng.gamma(4, 1 / 4, (BLOCK, 1)).astype(np.float32)
        z = rng.standard_normal((BLOCK, len(basis)), dtype=np.float32)
        rows = np.empty((min(BLOCK, n - start), pooled.shape[1]), np.float32)
        for some in (slice(i, i + 1000) for i in range(0, len(rows), 1000)):  # so that what is worked on stays in the cache
            made = pooled[photo[some]] * (1 - way[some])
            made += pooled[near[photo[some], which[some]]] * way[some]
            made += (size[some] * z[some]) @ basis
            np.clip(made[: len(rows) - some.start], 0, 6, out=rows[some])
        yield rows


def realistic_rows(n: int, seed: int = 0, data=PHOTOS) -> np.ndarray:
    "The blocks of `realistic_blocks` in one array, (n, 2·nf) float32: 10 kB a row with the default encoder."
    return np.concatenate(list(realistic_blocks(n, seed, data)))
