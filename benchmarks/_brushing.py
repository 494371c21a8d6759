"""What a brush is worth, whether parts go together as is said, and what a head learns from strokes and marks. A part of feedback.py.

A head is trained on the training photos of pets. A pair is a photo of the test split and its best match. A brush covers a random quarter of the query.
"""
from types import SimpleNamespace

import numpy as np
import torch
from _report import interval, row
from PIL import Image

from image_similarity.encoders.encoder import Embedded, pool
from image_similarity.encoders.regions import pool_inside
from image_similarity.explain.faithfulness import deletion_insertion, with_blur
from image_similarity.explain.maps import features_of
from image_similarity.explain.parts import brushed_maps, cosine_shares, interactions
from image_similarity.gallery.correcting import marked_pairs
from image_similarity.images.datasets import LabelledImages
from image_similarity.images.opening import open_image
from image_similarity.learners.siamese import pair_scorer, siamese_learner
from image_similarity.metrics.pairs import pair_auc
from image_similarity.scoring.corrections import corrected
from image_similarity.scoring.scorers import PairScorer, cosine_head

LINKS, CHANCES, STROKES, OTHERS = 3, 3, 10, 2000 # of a pair; random partners of each; of a collection; pairs that should stay
ASKED, MARKS = 5, 10 # queries of a collection that somebody marks results of, the first ones of each


def mean_row(name: str, values, **options) -> dict: return row(name, *interval(values, np.mean), **options)


def trained_head(files: list, pooled: np.ndarray, labels: np.ndarray, encoder) -> PairScorer:
    vectors = Embedded(files, pooled, np.zeros((0, *pooled.shape), np.float32), kept=np.arange(len(files)))
    return pair_scorer(siamese_learner(LabelledImages(files, [*labels], np.zeros(len(files), bool)), encoder, vectors, seed=0, progress=False))


def brush_rows(photos, encoder, n_pairs: int) -> list[dict]:
    files, pooled, labels, test = photos.files, photos.pooled, photos.labels, photos.test
    rng, known = np.random.default_rng(0), np.flatnonzero(~test)
    scorer = trained_head([files[i] for i in known], pooled[known], labels[known], encoder)
    vectors = torch.from_numpy(pooled)
    asked = rng.permutation(np.flatnonzero(test))[:n_pairs]
    logits = scorer.logits(scorer.rows(vectors[asked]), scorer.rows(vectors[known])).numpy()
    pairs = [(int(q), int(known[k])) for q, k in zip(asked, logits.argmax(1))]
    maps = {i: features_of(encoder, open_image(files[i])) for pair in pairs for i in pair}
    left = {q: quarter_away(maps[q].shape[1:], rng) for q, _ in pairs}
    return [*faithful(pairs, files, maps, left, scorer, encoder, rng), *linked(pairs, files, maps, scorer, encoder, rng),
            *mirrored([q for q, _ in pairs], files, maps, encoder), *stroked(pairs, maps, left, scorer, vectors, labels, test, rng),
            *marked(asked, scorer, vectors, labels, test, rng)]


def quarter_away(shape, rng) -> np.ndarray:
    "The cells that a brush leaves."
    h, w = shape
    left, y, x = np.ones((h, w), bool), rng.integers(0, h - h // 2 + 1), rng.integers(0, w - w // 2 + 1)
    left[y:y + h // 2, x:x + w // 2] = False
    return left


def faithful(pairs, files, maps, left, scorer, encoder, rng) -> list[dict]:
    "Deletion and insertion of pixels, by the map of what a brush leaves and by the same map shuffled, when only these cells are pooled."
    errors, deletion, insertion = [], [], []
    for q, g in pairs:
        inside, match = left[q], pool(maps[g][None])[0]
        relevance, _, logit = brushed_maps(scorer, maps[q], maps[g], inside, np.ones(maps[g].shape[1:], bool))
        nothing = float(scorer.pair_logits(torch.zeros(1, len(match)), match[None])[0])
        errors.append(abs(relevance.sum() - (logit - nothing)))
        def score(images, inside=inside, match=match):
            seen = encoder(images).float()[:, :, torch.from_numpy(inside)][..., None]
            return scorer.pair_logits(pool(seen), match.expand(len(images), -1)).sigmoid()
        shuffled = relevance.copy()
        shuffled[inside] = rng.permutation(relevance[inside])
        curves = [deletion_insertion(score, *with_blur(files[q], encoder), one) for one in (relevance, shuffled)]
        deletion.append(curves[0].deletion_area - curves[1].deletion_area)
        insertion.append(curves[0].insertion_area - curves[1].insertion_area)
    return [row("brushed_map_error", float(max(errors)), goal=1e-3, better="lower"),
            mean_row("brushed_deletion_minus_shuffled", deletion, goal=0, better="lower", by_interval=True, against="the same map, its cells shuffled"),
            mean_row("brushed_insertion_minus_shuffled", insertion, goal=0, by_interval=True, against="the same map, its cells shuffled")]


def blurred_cells(image: torch.Tensor, blurred: torch.Tensor, shape, cells) -> torch.Tensor:
    "(1 + n, 3, s, s): the picture, and the picture with each of the cells blurred."
    (h, w), side, found = shape, image.shape[1], [image]
    for cell in cells:
        row, column = divmod(int(cell), w)
        one = image.clone()
        here = (slice(None), slice(row * side // h, (row + 1) * side // h), slice(column * side // w, (column + 1) * side // w))
        one[here] = blurred[here]
        found.append(one)
    return torch.stack(found)


def strongest(links: np.ndarray, n: int) -> list[tuple[int, int]]:
    left, found = links.copy(), []
    for _ in range(n):
        i, j = np.unravel_index(left.argmax(), left.shape)
        found.append((int(i), int(j)))
        left[i], left[:, j] = -np.inf, -np.inf
    return found


@torch.inference_mode()
def linked(pairs, files, maps, scorer, encoder, rng) -> list[dict]:
    "Pixels of both ends of a link are blurred: how much more goes than by each end alone, beside links of the same cell to random ones."
    rows = []
    for name, head, of in (("links", scorer, lambda q, g: interactions(scorer, q, g)), ("cosine_links", cosine_head(encoder.width, encoder.concat), cosine_shares)):
        found = []
        for q, g in pairs:
            shapes, ends = (maps[q].shape[1:], maps[g].shape[1:]), strongest(of(maps[q], maps[g]), LINKS)
            others = rng.integers(0, shapes[1][0] * shapes[1][1], (LINKS, CHANCES))
            looks = [pool(encoder(blurred_cells(*with_blur(files[k], encoder), shape, cells)).float()) for k, shape, cells in
                     ((q, shapes[0], [i for i, _ in ends]), (g, shapes[1], [*(j for _, j in ends), *others.ravel()]))]
            f = head.logits(head.rows(looks[0]), head.rows(looks[1])).double().numpy()
            joint = f[0, 0] - f[1:, :1] - f[:1, 1:] + f[1:, 1:]
            for k in range(LINKS): found.append(joint[k, k] - joint[k, LINKS + k * CHANCES:LINKS + (k + 1) * CHANCES].mean())
        per_pair = np.array(found).reshape(len(pairs), LINKS).mean(1)
        rows.append(mean_row(f"{name}_deletion_minus_random", per_pair, goal=0, by_interval=True, against="a random partner of the same cell"))
    return rows


def mirrored(queries, files, maps, encoder) -> list[dict]:
    "A picture with its mirror image: the cell that goes with a cell is where it went, give or take one cell."
    hits, chance = [], []
    for q in queries:
        picture = open_image(files[q])
        other = features_of(encoder, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        (h, w), links = maps[q].shape[1:], cosine_shares(maps[q], other)
        lengths = links / np.maximum(other.flatten(1).norm(dim=0).double().numpy(), 1e-9) # of cells that shout, all are the partner
        rows, columns = np.divmod(np.arange(h * w), w)
        near = (abs(rows[:, None] - rows) <= 1) & (abs(w - 1 - columns[:, None] - columns) <= 1)
        hits.append(near[np.arange(h * w), lengths.argmax(1)].mean())
        chance.append(near.mean())
    return [mean_row("mirrored_cells_found", hits), row("mirrored_cells_by_chance", float(np.mean(chance))),
            mean_row("mirrored_minus_chance", np.subtract(hits, chance), goal=0, by_interval=True, against="chance")]


@torch.inference_mode()
def stroked(pairs, maps, left, scorer, vectors, labels, test, rng) -> list[dict]:
    "Strokes of a collection, ten at a time: what of the wanted change is learned, for these pairs and for others of the same query; and what it costs."
    known, learned, carried, costs = np.flatnonzero(~test), [], [], []
    truth = torch.from_numpy(labels[test][:, None] == labels[known])
    auc = lambda head: pair_auc(head.logits(head.rows(vectors[test]), head.rows(vectors[known])).flatten().numpy(), truth.flatten().numpy())
    for some in np.array_split(np.arange(len(pairs)), max(1, len(pairs) // STROKES)):
        first = torch.stack([pool(maps[pairs[k][0]][None])[0] for k in some])
        less = torch.stack([pool_inside(maps[pairs[k][0]], left[pairs[k][0]]) for k in some])
        second = torch.stack([vectors[pairs[k][1]] for k in some])
        wanted = scorer.pair_logits(less, second)
        others = tuple(vectors[torch.from_numpy(known[rng.integers(0, len(known), OTHERS)])] for _ in range(2))
        again = corrected(scorer, first, second, wanted, (others[0], others[1]))
        gone = lambda a, b, w: 1 - float((again.pair_logits(a, b) - w).abs().sum() / (scorer.pair_logits(a, b) - w).abs().sum().clamp(min=1e-6))
        learned.append(gone(first, second, wanted))
        more = torch.from_numpy(known[rng.integers(0, len(known), (len(some), 5))]).flatten()
        repeat = lambda x: x.repeat_interleave(5, 0)
        carried.append(gone(repeat(first), vectors[more], scorer.pair_logits(repeat(less), vectors[more])))
        costs.append(auc(again) - auc(scorer))
    return [mean_row("stroke_learned", learned, goal=.5), mean_row("stroke_learned_by_other_pairs", carried), mean_row("stroke_auc_change", costs, goal=-.005)]


@torch.inference_mode()
def marked(asked, scorer, vectors, labels, test, rng) -> list[dict]:
    "Marks of a collection, of the first results of five queries: what of the wanted change is learned, and what it does to the answers to other queries, of the same classes and of all."
    learned, gains, near, known = [], [], [], np.flatnonzero(~test)
    class Said:  # of a catalogue, what `marked_pairs` asks for
        def __init__(self, pairs): self.pairs = pairs
        def said(self, kind): return [SimpleNamespace(id=n, value={"query": int(q), "item": int(k), "right": bool(labels[q] == labels[k])}) for n, (q, k) in enumerate(self.pairs)]
        def pooled_by_id(self, ids): return {id: vectors[id].numpy() for id in ids}
    score = lambda head, of: head.logits(head.rows(vectors[of]), head.rows(vectors[known])).numpy()
    same = lambda of: labels[of][:, None] == labels[known]
    auc = lambda head, of: pair_auc(score(head, of).flatten(), same(of).flatten())
    precision = lambda head, of: np.array([right[np.argsort(-scores, kind="stable")[:right.sum()]].mean() for scores, right in zip(score(head, of), same(of))])
    for some in np.array_split(asked, max(1, len(asked) // ASKED)):
        best = np.argsort(-score(scorer, some), axis=1, kind="stable")[:, :MARKS]
        marks, first, second, wanted = marked_pairs(SimpleNamespace(catalogue=Said([(q, known[k]) for q, row in zip(some, best) for k in row])), scorer)
        others = tuple(vectors[torch.from_numpy(rng.integers(0, len(vectors), OTHERS))] for _ in range(2))
        again = corrected(scorer, first, second, wanted, (others[0], others[1]), torch.full((len(marks),), 1 / len(marks)))
        gone = lambda head: float((head.pair_logits(first, second) - wanted).abs().sum())
        if gone(scorer) > 1e-6: learned.append(1 - gone(again) / gone(scorer))
        rest = np.setdiff1d(np.flatnonzero(test), some)
        rest = rest[same(rest).any(1)]
        gains.append(auc(again, rest) - auc(scorer, rest))
        if len(kin := rest[np.isin(labels[rest], labels[some])]): near += (precision(again, kin) - precision(scorer, kin)).tolist()
    return [mean_row("marks_learned_by_head", learned), mean_row("marks_auc_change", gains, goal=-.005), mean_row("marks_r_precision_change", near, goal=0)]
