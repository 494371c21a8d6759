"""Pairs of pictures for the search for copies, made from seeds: true copies of many kinds, and pairs that only look like copies.

Half of the kinds may be chosen on (`CHOSEN`), with the seeds of training; the others are only reported. A pair is two encoded files, as
they would lie on a disk, each saved on its own: its own format and its own quality.
"""
import colorsys
import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from image_similarity.images.listing import image_files
from image_similarity.images.opening import open_image

Pair = tuple[bytes, bytes]
TRIES = 100 # draws of a picture that suits; where the pictures are drawn ones, it may be that none does
WORDS = "stone river cloud maple ember quiet north seven light ocean dream focus hello world green tiger paper frost honey pixel".split()


def saved(image: Image.Image, rng, lossless: float = .3, quality=(60, 96), **how) -> bytes:
    "As PNG, or as JPEG of some quality."
    buffer = io.BytesIO()
    if rng.random() < lossless: image.save(buffer, "PNG", compress_level=1)
    else: image.convert("RGB").save(buffer, "JPEG", quality=int(rng.integers(*quality)), **how)
    return buffer.getvalue()


def font(size: float): return ImageFont.load_default(size=max(7, int(size)))


def _colour(rng, dark: bool | None = None) -> tuple[int, ...]:
    low, high = (0, 256) if dark is None else (0, 60) if dark else (190, 256)
    return tuple(rng.integers(low, high, 3).tolist())


# Pictures that are mostly plain, alike but for a word, a shape, a line.

def _shape(draw: ImageDraw.ImageDraw, rng, name: str, box, fill) -> None:
    x, y, right, bottom = box
    if name == "disc": draw.ellipse(box, fill)
    elif name == "square": draw.rectangle(box, fill)
    elif name == "ring": draw.ellipse(box, outline=fill, width=max(2, int((right - x) / 8)))
    elif name == "triangle": draw.polygon([(x, bottom), (right, bottom), ((x + right) / 2, y)], fill)
    else: draw.polygon([(x, (y + bottom) / 2), ((x + right) / 2, y), (right, (y + bottom) / 2), ((x + right) / 2, bottom)], fill)


def wallpapers(rng, *_) -> Pair:
    "One background; a different word, number or shape in the same place."
    width, height = [(640, 360), (960, 540), (1280, 720)][rng.integers(3)]
    background, ink = _colour(rng, True) if rng.random() < .8 else (0, 0, 0), _colour(rng, False)
    kind, size = rng.integers(4), height * rng.uniform(.06, .3)
    place = (rng.uniform(.1, .5) * width, rng.uniform(.1, .6) * height)
    if kind == 0: said = rng.choice(WORDS, 2, replace=False).tolist()
    elif kind == 1: said = [f"{rng.choice(WORDS[:3])}{n}" for n in rng.choice(10, 2, replace=False)]; said[1] = said[0][:-1] + said[1][-1]
    elif kind == 2: said = [str(n) for n in rng.choice(np.arange(10, 100), 2, replace=False)]
    else: said = rng.choice(["disc", "square", "ring", "triangle", "diamond"], 2, replace=False).tolist()
    files = []
    for word in said:
        image = Image.new("RGB", (width, height), background)
        draw = ImageDraw.Draw(image)
        if kind == 3: _shape(draw, rng, word, (*place, place[0] + size, place[1] + size), ink)
        else: draw.text(place, word, ink, font(size))
        files.append(saved(image, rng))
    return files[0], files[1]


def _number(rng) -> str: return f"{rng.integers(1000, 99999) / 100:,.2f}"


def _scanned(page: Image.Image, rng) -> Image.Image:
    "Paper that is not quite white, a little noise."
    pixels = np.asarray(page, np.float32) * rng.uniform(.93, 1) + rng.normal(0, rng.uniform(0, 3), (page.height, page.width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def forms(rng, *_) -> Pair:
    "A form or a receipt, scanned twice, with other numbers in one line."
    width, height = [(620, 877), (850, 1100), (480, 800)][rng.integers(3)]
    blank = Image.new("RGB", (width, height), "white")
    draw, size = ImageDraw.Draw(blank), rng.uniform(.014, .022) * height
    draw.text((.08 * width, .04 * height), " ".join(rng.choice(WORDS, 2)).title(), "black", font(2 * size))
    lines = rng.integers(8, 22)
    boxed, changed, rows = rng.random() < .5, int(rng.integers(lines)), np.linspace(.12, .92, lines) * height
    for i, y in enumerate(rows):
        draw.text((.08 * width, y), " ".join(rng.choice(WORDS, 2)), "black", font(size))
        if boxed: draw.rectangle((.55 * width, y - 3, .92 * width, y + 1.4 * size), outline="black")
        if i != changed: draw.text((.58 * width, y), _number(rng), "black", font(size))
    files, noisy = [], rng.random() < .5
    for _ in range(2):
        page = blank.copy()
        ImageDraw.Draw(page).text((.58 * width, rows[changed]), _number(rng), "black", font(size))
        files.append(saved(_scanned(page, rng) if noisy else page, rng))
    return files[0], files[1]


def line_art(rng, *_) -> Pair:
    "Two drawings in one frame: the same curves but for a few."
    width, height = 600, int(rng.integers(400, 800))
    curves = [rng.uniform(.05, .95, (4, 2)) * (width, height) for _ in range(int(rng.integers(6, 14)))]
    t = np.linspace(0, 1, 60)[:, None]
    def drawn(curves) -> Image.Image:
        image = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        draw.rectangle((8, 8, width - 9, height - 9), outline="black", width=2)
        for a, b, c, d in curves: draw.line([tuple(p) for p in (1 - t)**3 * a + 3 * t * (1 - t)**2 * b + 3 * t**2 * (1 - t) * c + t**3 * d], "black", 3)
        return image
    other = list(curves)
    for i in rng.choice(len(curves), int(rng.integers(1, 3)), replace=False): other[i] = rng.uniform(.05, .95, (4, 2)) * (width, height)
    return saved(drawn(curves), rng), saved(drawn(other), rng)


# Other colours.

def shirts(rng, *_) -> Pair:
    "A drawn shirt, with folds and a light behind it, in two colours."
    size = int(rng.integers(240, 500))
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2)
    folds = .8 + .2 * np.sin(rng.uniform(5, 12) * x + rng.uniform(-4, 4) * y + rng.uniform(0, 6))
    mask = Image.new("L", (size, size))
    points = [(.3, .15), (.42, .2), (.58, .2), (.7, .15), (.95, .35), (.85, .48), (.73, .4), (.73, .9), (.27, .9), (.27, .4), (.15, .48), (.05, .35)]
    ImageDraw.Draw(mask).polygon([(px * size, py * size) for px, py in points], 255)
    cloth = np.asarray(mask.filter(ImageFilter.GaussianBlur(.7)), np.float32)[..., None] / 255
    behind, files, hue = rng.uniform(200, 255) * np.ones(3) * (1 - .1 * (y**2)[..., None]), [], rng.random()
    for i in range(2):
        ink = np.array(colorsys.hsv_to_rgb((hue + i * rng.uniform(.12, .5)) % 1, rng.uniform(.6, 1), rng.uniform(.6, .9))) * 255
        files.append(saved(Image.fromarray(np.clip(cloth * ink * folds[..., None] + (1 - cloth) * behind, 0, 255).astype(np.uint8)), rng))
    return files[0], files[1]


@lru_cache
def _listed(folder: Path) -> list[Path]: return image_files(folder)


def recoloured(rng, data: Path, _) -> Pair:
    "A product photo, and the same one with its most common colour turned to another."
    files = _listed(data / "fashion_clothes")
    for _ in range(TRIES):
        image = open_image(files[rng.integers(len(files))])
        hsv = np.asarray(image.convert("HSV")).astype(int)
        strong = (hsv[..., 1] > 70) & (hsv[..., 2] > 50)
        if strong.mean() > .08: break
    common = np.bincount(hsv[..., 0][strong], minlength=256)
    hue = int(np.convolve(np.tile(common, 2), np.ones(21), "same")[128:384].argmax() + 128) % 256
    near = strong & (np.abs((hsv[..., 0] - hue + 128) % 256 - 128) < 25)
    hsv[..., 0] = (hsv[..., 0] + near * rng.integers(32, 224)) % 256
    return saved(image, rng), saved(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB"), rng)


# Other photos of the same thing.

@lru_cache
def _coil(data: Path) -> dict[str, dict[int, Path]]:
    views: dict[str, dict[int, Path]] = {}
    for file in _listed(data / "coil100"):
        name, _, angle = file.stem.partition("__")
        views.setdefault(name, {})[int(angle)] = file
    return views


def _turned(shown: dict[int, Path], angle: int, by: int) -> int:
    "The angle of the view that is so many degrees further, or the next one that there is."
    return min((other for other in shown if other != angle), key=lambda other: abs((other - angle - by + 180) % 360 - 180))


def _difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b.resize(a.size), np.float32)).mean())


def views(rng, data: Path, training: bool) -> Pair:
    "One object of COIL-100, 10° to 30° apart, where that changes more than JPEG 30 does."
    objects = sorted(_coil(data))[training::2]
    for _ in range(TRIES):
        shown = _coil(data)[objects[rng.integers(len(objects))]]
        angle = int(rng.choice(sorted(shown)))
        other = _turned(shown, angle, int(rng.choice([10, 15, 20, 25, 30])))
        a, b = open_image(shown[angle]), open_image(shown[other])
        buffer = io.BytesIO()
        a.save(buffer, "JPEG", quality=30)
        if _difference(a, b) > _difference(a, open_image(buffer.getvalue())): break
    return saved(a, rng), saved(b, rng)


def bursts(rng, data: Path, _) -> Pair:
    "A photo, and the next of the burst: what is in the middle has moved by a few pixels, the rest nearly stayed; a little noise, another exposure."
    image = _photo(rng, data)
    pixels = np.asarray(image, np.float32)
    h, w = pixels.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    centre, spread = rng.uniform(.35, .65, 2) * (h, w), rng.uniform(.15, .3) * min(h, w)
    bump = np.exp(-((y - centre[0])**2 + (x - centre[1])**2) / (2 * spread**2))
    angle, by = rng.uniform(0, 2 * np.pi), rng.uniform(.015, .05) * min(h, w)
    from scipy.ndimage import map_coordinates
    places = [y + by * np.sin(angle) * bump, x + by * np.cos(angle) * bump]
    moved = np.stack([map_coordinates(pixels[..., c], places, order=1, mode="nearest") for c in range(3)], -1)
    moved = moved * rng.uniform(.95, 1.05) + rng.normal(0, 2, moved.shape)
    return saved(image, rng, quality=(75, 96)), saved(Image.fromarray(np.clip(moved, 0, 255).astype(np.uint8)), rng, quality=(75, 96))


def near_views(rng, data: Path, training: bool) -> Pair:
    "5° apart."
    objects = sorted(_coil(data))[training::2]
    shown = _coil(data)[objects[rng.integers(len(objects))]]
    angle = int(rng.choice(sorted(shown)))
    return saved(open_image(shown[angle]), rng), saved(open_image(shown[_turned(shown, angle, 5)]), rng)


# True copies: a photo, and what was done to it.

def _photo(rng, data: Path) -> Image.Image:
    folder = ("flickr8k_sample", "imagenet_sample", "pets", "clothing")[rng.integers(4)]
    files = _listed(data / folder)
    for _ in range(TRIES):
        image = open_image(files[rng.integers(len(files))])
        if min(image.size) >= 120 and np.asarray(image.convert("L")).std() > 15: break
    return image


def _crop(image, rng, share):
    width, height = (round(side * share**.5) for side in image.size)
    x, y = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return image.crop((x, y, x + width, y + height))


def _caption(image, rng, watermark=False):
    layer, (w, h) = Image.new("RGBA", image.size), image.size
    draw = ImageDraw.Draw(layer)
    if watermark:
        ink = (*[(255,) * 3, (0,) * 3][rng.integers(2)], int(rng.integers(110, 200)))
        step, said, size = rng.uniform(.16, .28) * h, rng.choice(["SAMPLE PHOTO ", "stock image ", "PREVIEW "]) * 12, rng.uniform(.06, .1) * h
        for n, y in enumerate(np.arange(-h, 2 * h, step)): draw.text((-.3 * w - n * 13 % 90, y), str(said), ink, font(size))
        layer = layer.rotate(rng.uniform(15, 40), Image.Resampling.BICUBIC)
    else:
        for y, said in ((.02, "WHEN YOU SEE IT"), (.82, rng.choice(["AND NOBODY KNOWS", "EVERY MONDAY", "SO IT BEGINS"]))):
            draw.text((.05 * w, y * h), str(said), "white", font(.1 * h), stroke_width=max(1, int(.008 * h)), stroke_fill="black")
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _screenshot(image, rng, bars=True):
    "The photo on a phone's or a computer's screen, with or without bars, icons and words around it."
    wide = rng.random() < .5
    canvas = Image.new("RGB", (1024, 640) if wide else (540, 1000), _colour(rng, rng.random() < .6))
    scale = min(canvas.width * (rng.uniform(.55, .9) if wide else 1) / image.width, canvas.height * rng.uniform(.6, .85) / image.height)
    shown = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))), Image.Resampling.LANCZOS)
    x, y = (canvas.width - shown.width) // 2, int((canvas.height - shown.height) * rng.uniform(.3, .7))
    canvas.paste(shown, (x, y))
    draw, ink = ImageDraw.Draw(canvas), _colour(rng, None)
    if bars:
        draw.text((12, 6), f"{rng.integers(24):02}:{rng.integers(60):02}", ink, font(18))
        draw.text((canvas.width - 90, 6), f"{rng.integers(100)} %", ink, font(18))
        if y + shown.height < canvas.height - 60:
            for n in range(5): draw.rounded_rectangle((30 + n * 70, canvas.height - 45, 60 + n * 70, canvas.height - 15), 6, fill=_colour(rng))
        if y > 60: draw.text((20, 32), " ".join(rng.choice(WORDS, 3)), ink, font(20))
    return canvas


def _collage(image, rng, data, n):
    cell = int(rng.integers(900, 1300) / n / 2) * 2
    canvas = Image.new("RGB", (cell * n, cell * n), "white")
    ours, gap = int(rng.integers(n * n)), int(rng.integers(0, 10))
    for i in range(n * n):
        shown = ImageOps.contain(image, (cell - gap, cell - gap)) if i == ours else ImageOps.fit(_photo(rng, data), (cell - gap, cell - gap))
        canvas.paste(shown, (i % n * cell + (cell - shown.width) // 2, i // n * cell + (cell - shown.height) // 2))
    return canvas


def _inset(image, rng, data):
    around = ImageOps.fit(_photo(rng, data), (900, 640))
    scale = rng.uniform(.3, .5) * 640 / min(image.size)
    shown = image.resize([max(8, int(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    if shown.width > 600: shown = ImageOps.contain(shown, (600, 400))
    around.paste(shown, (int(rng.integers(10, 890 - shown.width)), int(rng.integers(10, 630 - shown.height))))
    return around


def _hue(image, rng):
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(rng.integers(25, 230))
    return Image.fromarray(hsv, "HSV").convert("RGB")


def _resized(image, scale, how=Image.Resampling.LANCZOS): return image.resize([max(8, round(side * scale)) for side in image.size], how)


def _light(image, rng):
    return ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(rng.choice([.7, 1.3]))).enhance(rng.uniform(.75, 1.25))


# Kinds that nobody looked at while anything was chosen.

def _vignette(image, rng):
    "Darker towards the corners."
    y, x = (np.linspace(-1, 1, side)[at] for side, at in zip(image.size[::-1], (np.s_[:, None], np.s_[None])))
    light = 1 - rng.uniform(.3, .6) * np.clip((x**2 + y**2) / 2, 0, 1)
    return Image.fromarray((np.asarray(image.convert("RGB")) * light[..., None]).astype(np.uint8))


def _noisy(image, rng):
    pixels = np.asarray(image.convert("RGB"), np.float32)
    return Image.fromarray(np.clip(pixels + rng.normal(0, rng.uniform(5, 12), pixels.shape), 0, 255).astype(np.uint8))


def _warm(image, rng):
    "The white balance of another hour."
    by = np.array([1 + (more := rng.uniform(.06, .15)), 1, 1 - more])[::int(rng.choice([-1, 1]))]
    return Image.fromarray(np.clip(np.asarray(image.convert("RGB")) * by, 0, 255).astype(np.uint8))


def _covered(image, rng, what):
    "A sticker on it, a black bar over a part, or the day in a corner."
    image, (w, h) = image.convert("RGB").copy(), image.size
    draw, x, y, side = ImageDraw.Draw(image), rng.uniform(.1, .6) * w, rng.uniform(.1, .6) * h, rng.uniform(.15, .3) * min(w, h)
    if what == "bar": draw.rectangle((x, y, x + 1.8 * side, y + .6 * side), "black")
    elif what == "day": draw.text((.66 * w, .9 * h), f"{rng.integers(1, 29):02}.{rng.integers(1, 13):02}.{rng.integers(1998, 2012)}", (255, 150, 40), font(.06 * h))
    else:
        draw.ellipse((x, y, x + side, y + side), "gold", "black", 2)
        for at in (.28, .62): draw.ellipse((x + at * side, y + .3 * side, x + (at + .1) * side, y + .45 * side), "black")
        draw.arc((x + .25 * side, y + .3 * side, x + .75 * side, y + .8 * side), 20, 160, "black", max(2, int(.06 * side)))
    return image


Made = Callable[[Image.Image, np.random.Generator, Path], Image.Image]
COPIES: dict[str, Made] = {
    "jpeg": lambda i, r, d: i, "small": lambda i, r, d: _resized(i, r.uniform(.3, .8)), "thumbnail": lambda i, r, d: ImageOps.contain(i, (96, 96)),
    "mirror": lambda i, r, d: ImageOps.mirror(i), "turn": lambda i, r, d: i.transpose(Image.Transpose.ROTATE_90),
    "tilt": lambda i, r, d: i.rotate(r.uniform(3, 15), Image.Resampling.BICUBIC), "stretch": lambda i, r, d: i.resize((300, 300)),
    "blur": lambda i, r, d: i.filter(ImageFilter.GaussianBlur(r.uniform(1, 2))), "enlarged": lambda i, r, d: _resized(i, 3).filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda i, r, d: ImageOps.grayscale(i), "sepia": lambda i, r, d: ImageOps.colorize(ImageOps.grayscale(i), "#201000", "#fff0d0"),
    "light": lambda i, r, d: _light(i, r), "hue": lambda i, r, d: _hue(i, r), "negative": lambda i, r, d: ImageOps.invert(i),
    "meme": lambda i, r, d: _caption(i, r), "watermark": lambda i, r, d: _caption(i, r, True),
    "crop_60": lambda i, r, d: _crop(i, r, r.uniform(.55, .8)), "crop_40": lambda i, r, d: _crop(i, r, .4), "crop_20": lambda i, r, d: _crop(i, r, .2),
    "screenshot": lambda i, r, d: _screenshot(i, r), "screenshot_bare": lambda i, r, d: _screenshot(i, r, False),
    "collage_2": lambda i, r, d: _collage(i, r, d, 2), "collage_3": lambda i, r, d: _collage(i, r, d, 3), "inset": lambda i, r, d: _inset(i, r, d),
    "framed": lambda i, r, d: ImageOps.expand(i.convert("RGB"), int(r.uniform(.03, .1) * min(i.size)), _colour(r)), "upside_down": lambda i, r, d: i.transpose(Image.Transpose.ROTATE_180),
    "mirrored_crop": lambda i, r, d: ImageOps.mirror(_crop(i, r, .6)), "noisy": lambda i, r, d: _noisy(i, r), "vignette": lambda i, r, d: _vignette(i, r),
    "sharpened": lambda i, r, d: i.filter(ImageFilter.UnsharpMask(2, 120, 2)), "warm": lambda i, r, d: _warm(i, r), "palette": lambda i, r, d: i.quantize(32).convert("RGB"),
    "faded": lambda i, r, d: Image.blend(i.convert("RGB"), Image.new("RGB", i.size, "white"), r.uniform(.25, .45)),
    "sticker": lambda i, r, d: _covered(i, r, "sticker"), "bar": lambda i, r, d: _covered(i, r, "bar"), "day": lambda i, r, d: _covered(i, r, "day")}
NEW = ("framed", "upside_down", "mirrored_crop", "noisy", "vignette", "sharpened", "warm", "palette", "faded", "sticker", "bar", "day") # that nobody had looked at before they were measured
SAME_PICTURE = ("jpeg", "small", "thumbnail", "stretch", "blur", "enlarged") # nothing is lost when these go
NEGATIVES: dict[str, Callable[..., Pair]] = {"wallpapers": wallpapers, "forms": forms, "line_art": line_art, "shirts": shirts, "recoloured": recoloured,
                                             "views": views, "bursts": bursts, "near_views": near_views}
CHOSEN = ("wallpapers", "shirts", "views", "bursts", "jpeg", "small", "mirror", "tilt", "enlarged", "grey", "sepia", "light", "hue", "negative", "meme", "watermark", "crop_60",
          "crop_20", "screenshot", "screenshot_bare", "collage_2", "collage_3") # kinds that anything was chosen on: half of those that are measured


def copy_pair(kind: str, rng, data: Path) -> Pair:
    "An original, and a copy of it."
    image = _photo(rng, data)
    quality = (12, 50) if kind == "jpeg" else (60, 96)
    return saved(image, rng, .2, (85, 97)), saved(COPIES[kind](image, rng, data).convert("RGB"), rng, 0 if kind == "jpeg" else .15, quality)


def made_pairs(kind: str, n: int, data: Path, training: bool = False, seed: int = 0) -> Iterator[Pair]:
    "Some pairs of one kind, always the same ones; those of training are others."
    for i in range(n):
        rng = np.random.default_rng([sum(map(ord, kind)), training, seed, i])
        yield NEGATIVES[kind](rng, data, training) if kind in NEGATIVES else copy_pair(kind, rng, data)
