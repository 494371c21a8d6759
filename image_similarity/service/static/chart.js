// The map: a point for each picture, written into pixels, so that a hundred thousand move smoothly without WebGL; the
// names of groups from afar, thumbnails from near; a lasso to choose with. All that a pointer does, keys and buttons do.
import { el, plural } from "./dom.js";

const NEAR = 120;   // points on the screen from which on they are thumbnails
const THUMB = 72;   // pixels of one
const HUES = 12;

const numbers = new Uint32Array(1);
const packed = (r, g, b) => { numbers[0] = (255 << 24) | (b << 16) | (g << 8) | r; return numbers[0]; };
function hsl(hue, saturation, light) {
  const a = saturation * Math.min(light, 1 - light), f = (n) => { const k = (n + hue / 30) % 12; return Math.round(255 * (light - a * Math.max(-1, Math.min(k - 3, 9 - k, 1)))); };
  return [f(0), f(8), f(4)];
}
const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
// Neighbours in number differ in hue; after twelve the lightness changes.
const ofNumber = (n) => hsl((n * 360 * 5 / HUES + 150) % 360, 0.6, (dark() ? 0.62 : 0.42) + 0.1 * (Math.floor(n / HUES) % 2));
const none = () => (dark() ? [110, 118, 113] : [170, 176, 170]);
const along = (share) => hsl(230 - 200 * share, 0.65, dark() ? 0.6 : 0.45);

// `on`: chosen(ids), open(item), hover is its own. `show(items)` takes [{ id, file, label, x, y, cluster, … }].
export function makeChart({ thumbnail, on }) {
  const points = el("canvas", { "aria-hidden": "true" }), over = el("canvas", { "aria-hidden": "true" });
  const hint = el("p", { class: "hint" }, "Wheel or + − zooms, drag or arrows move, Shift and drag selects, 0 shows all."), peek = el("div", { class: "peek", hidden: true });
  const plane = el("div", { class: "plane", role: "application", tabindex: "0", "aria-label": "Map of the pictures: plus and minus zoom, arrows move, 0 shows all. The groups beside it are buttons." }, points, over, hint, peek);
  const key = el("div", { class: "key", tabindex: "0", role: "group", "aria-label": "Groups" });
  const element = el("div", { class: "chart" }, plane, key);
  const pen = points.getContext("2d", { alpha: true }), top = over.getContext("2d");
  let items = [], chosen = new Set(), view = { x: 0, y: 0, scale: 1 }, by = "label", colours = new Uint32Array(0), xs = new Float32Array(0), ys = new Float32Array(0);
  let image = null, pixels = null, width = 1, height = 1, scheduled = false, lasso = null, lassoing = false, drag = null, groups = [], suspicion = new Map(), moving = null;
  const kept = new Map(); // thumbnails

  const home = () => Math.min(width, height) / 2.15;
  const sx = (x) => width / 2 + (x - view.x) * view.scale, sy = (y) => height / 2 + (y - view.y) * view.scale;
  const soon = () => { if (!scheduled) { scheduled = true; requestAnimationFrame(draw); } };

  function fit() {
    width = Math.max(1, plane.clientWidth);
    height = Math.max(1, plane.clientHeight);
    for (const canvas of [points, over]) Object.assign(canvas, { width, height });
    image = pen.createImageData(width, height);
    pixels = new Uint32Array(image.data.buffer);
  }

  function paint() { // into the pixels
    pixels.fill(0);
    const size = Math.max(2, Math.min(9, Math.round(1.6 + Math.log2(view.scale / home() + 1) + (items.length < 5000 ? 2 : 0)))), half = size >> 1;
    const ox = width / 2 - view.x * view.scale - half, oy = height / 2 - view.y * view.scale - half, scale = view.scale;
    const mine = packed(...(dark() ? [255, 255, 255] : [0, 0, 0])), seen = [];
    for (let i = 0; i < xs.length; i++) {
      const x = (ox + xs[i] * scale) | 0, y = (oy + ys[i] * scale) | 0;
      if (x < 0 || y < 0 || x + size >= width || y + size >= height) continue;
      if (seen.length <= NEAR) seen.push(i);
      const colour = colours[i];
      for (let r = 0, at = y * width + x; r < size; r++, at += width) for (let c = 0; c < size; c++) pixels[at + c] = colour;
    }
    if (chosen.size) for (let i = 0; i < xs.length; i++) if (chosen.has(items[i].id)) {
      const x = (ox + xs[i] * scale - 1) | 0, y = (oy + ys[i] * scale - 1) | 0, wide = size + 2;
      if (x < 0 || y < 0 || x + wide >= width || y + wide >= height) continue;
      for (let r = 0, at = y * width + x; r < wide; r++, at += width) for (let c = 0; c < wide; c++) pixels[at + c] = mine;
    }
    pen.putImageData(image, 0, 0);
    return seen;
  }

  function thumb(id) {
    if (!kept.has(id)) {
      const picture = new Image();
      picture.onload = soon;
      picture.src = thumbnail(id, 160);
      kept.set(id, picture);
      if (kept.size > 4 * NEAR) kept.delete(kept.keys().next().value);
    }
    return kept.get(id);
  }

  function draw() {
    scheduled = false;
    if (!pixels) return;
    const seen = paint(), style = getComputedStyle(plane);
    top.clearRect(0, 0, width, height);
    const near = seen.length <= NEAR && view.scale > 2 * home();
    if (near) for (const i of seen) {
      const picture = thumb(items[i].id);
      if (!picture.complete || !picture.naturalWidth) continue;
      const scale = THUMB / Math.max(picture.naturalWidth, picture.naturalHeight), w = picture.naturalWidth * scale, h = picture.naturalHeight * scale;
      top.drawImage(picture, sx(xs[i]) - w / 2, sy(ys[i]) - h / 2, w, h);
      if (chosen.has(items[i].id)) { top.strokeStyle = style.color; top.lineWidth = 3; top.strokeRect(sx(xs[i]) - w / 2, sy(ys[i]) - h / 2, w, h); }
    } else names(style);
    if (lasso?.length > 1) {
      top.strokeStyle = style.color;
      top.lineWidth = 2;
      top.setLineDash([6, 4]);
      top.beginPath();
      lasso.forEach(([x, y], i) => (i ? top.lineTo(x, y) : top.moveTo(x, y)));
      top.closePath();
      top.stroke();
      top.setLineDash([]);
    }
  }

  function names(style) { // the largest first, and none over another
    top.font = `600 14px ${style.fontFamily}`;
    top.textAlign = "center";
    top.lineWidth = 4;
    const taken = [];
    for (const group of groups) {
      const x = sx(group.x), y = sy(group.y), w = top.measureText(group.name).width + 8, box = [x - w / 2, y - 10, x + w / 2, y + 10];
      if (box[2] < 0 || box[0] > width || box[3] < 0 || box[1] > height) continue;
      if (taken.some((b) => b[0] < box[2] && b[2] > box[0] && b[1] < box[3] && b[3] > box[1])) continue;
      taken.push(box);
      top.strokeStyle = style.backgroundColor;
      top.strokeText(group.name, x, y + 5);
      top.fillStyle = style.color;
      top.fillText(group.name, x, y + 5);
    }
  }

  function colour() {
    const numbered = (name) => { const all = [...new Set(items.map((item) => item[name]).filter((v) => v !== null))].sort(), at = new Map(all.map((v, n) => [v, n])); return (item) => (item[name] === null ? none() : ofNumber(at.get(item[name]))); };
    const dates = items.map(({ date }) => date).filter((d) => d !== null), [least, most] = dates.reduce(([a, b], d) => [Math.min(a, d), Math.max(b, d)], [Infinity, -Infinity]);
    const of = {
      date: (item) => (item.date === null ? none() : along(most > least ? (item.date - least) / (most - least) : 0.5)),
      suspicion: (item) => (suspicion.has(item.id) ? along(0.4 + 0.6 * suspicion.get(item.id)) : none()),
    }[by] ?? numbered(by);
    colours = new Uint32Array(items.length);
    items.forEach((item, i) => { colours[i] = packed(...of(item)); });
  }

  function paintKey() {
    const names = by === "label" || by === "folder" ? by : "cluster", counts = new Map();
    for (const item of items) counts.set(item[names], [...(counts.get(item[names]) ?? []), item]);
    const rows = [...counts].filter(([name]) => name !== null).sort((a, b) => b[1].length - a[1].length);
    key.replaceChildren(el("h2", {}, { label: "Labels", folder: "Folders" }[names] ?? "Groups"), ...rows.slice(0, 200).map(([name, own]) => {
      const dot = el("i", { "aria-hidden": "true" });
      if (by !== "date" && by !== "suspicion") { const c = colours[items.indexOf(own[0])]; dot.style.background = `rgb(${c & 255} ${(c >> 8) & 255} ${(c >> 16) & 255})`; }
      return el("button", { type: "button", class: "quiet", title: "Zoom to it; press again to select it", onclick: () => zoomTo(own) }, dot, `${name} (${own.length.toLocaleString("en")})`);
    }));
  }

  function zoomTo(own) {
    const middle = (name) => { const all = own.map((item) => item[name]).sort((a, b) => a - b); return [all[Math.floor(all.length * 0.05)], all[Math.floor(all.length * 0.95)]]; };
    const [x0, x1] = middle("x"), [y0, y1] = middle("y");
    const to = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, scale: Math.min(width / Math.max(x1 - x0, 1e-4), height / Math.max(y1 - y0, 1e-4)) * 0.8 };
    to.scale = Math.min(Math.max(to.scale, home()), 4000 * home());
    if (Math.abs(to.scale / view.scale - 1) < 1e-6 && Math.hypot(to.x - view.x, to.y - view.y) < 1e-6) on.chosen(own.map(({ id }) => id));
    else { view = to; soon(); }
  }

  function zoom(factor, x = width / 2, y = height / 2) {
    const scale = Math.min(Math.max(view.scale * factor, home() / 2), 4000 * home()), real = scale / view.scale;
    view = { scale, x: view.x + (x - width / 2) / view.scale * (1 - 1 / real), y: view.y + (y - height / 2) / view.scale * (1 - 1 / real) };
    soon();
  }

  function nearest(x, y) {
    let best = null, least = 18 ** 2;
    for (let i = 0; i < xs.length; i++) { const d = (sx(xs[i]) - x) ** 2 + (sy(ys[i]) - y) ** 2; if (d < least) { least = d; best = items[i]; } }
    return best;
  }

  function inside([x, y], polygon) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if ((yi > y) !== (yj > y) && x < (xj - xi) * (y - yi) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  }

  const where = (event) => { const box = plane.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  plane.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...where(event)); }, { passive: false });
  const fingers = new Map();
  plane.addEventListener("pointerdown", (event) => {
    plane.setPointerCapture(event.pointerId);
    plane.focus({ preventScroll: true });
    const at = where(event);
    fingers.set(event.pointerId, at);
    if (lassoing || event.shiftKey) lasso = [at];
    else drag = { at, view: { ...view }, moved: false };
  });
  plane.addEventListener("pointermove", (event) => {
    const at = where(event);
    if (fingers.size === 2 && fingers.has(event.pointerId)) { // two fingers zoom
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1], before = fingers.get(event.pointerId), apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoom(apart(at) / Math.max(1, apart(before)), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
      drag = null;
    } else if (lasso) { lasso.push(at); soon(); }
    else if (drag) {
      drag.moved ||= Math.hypot(at[0] - drag.at[0], at[1] - drag.at[1]) > 4;
      view = { ...view, x: drag.view.x - (at[0] - drag.at[0]) / view.scale, y: drag.view.y - (at[1] - drag.at[1]) / view.scale };
      soon();
    } else look(at);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, at);
  });
  plane.addEventListener("pointerup", (event) => {
    fingers.delete(event.pointerId);
    if (lasso) {
      if (lasso.length > 2) on.chosen(items.filter((_, i) => inside([sx(xs[i]), sy(ys[i])], lasso)).map(({ id }) => id));
      lasso = null;
      soon();
    } else if (drag && !drag.moved) { const item = nearest(...drag.at); on.chosen(item ? [item.id] : []); }
    drag = null;
  });
  plane.addEventListener("pointercancel", (event) => { fingers.delete(event.pointerId); lasso = drag = null; soon(); });
  plane.addEventListener("pointerleave", () => { peek.hidden = true; });
  plane.addEventListener("dblclick", (event) => { const item = nearest(...where(event)); if (item) on.open(item); });
  plane.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const step = 60 / view.scale, move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (move) { view = { ...view, x: view.x + move[0], y: view.y + move[1] }; soon(); }
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") whole();
    else if (event.key === "Enter") { const item = nearest(width / 2, height / 2); if (item) on.open(item); }
    else if (event.key === "Escape") on.chosen([]);
    else return;
    event.preventDefault();
  });

  function look([x, y]) {
    clearTimeout(moving);
    moving = setTimeout(() => {
      const item = nearest(x, y);
      peek.hidden = !item;
      if (!item) return;
      peek.replaceChildren(el("img", { src: thumbnail(item.id, 320), alt: "" }), item.label === null ? item.file : `${item.label}: ${item.file}`);
      Object.assign(peek.style, { left: `${Math.min(x + 12, width - 200)}px`, top: `${Math.min(y + 12, height - 180)}px` });
    }, 40);
  }

  function whole() { view = { x: 0, y: 0, scale: home() }; soon(); }

  new ResizeObserver(() => { if (!element.isConnected) return; const first = !pixels, share = view.scale / home(); fit(); view.scale = first ? home() : share * home(); soon(); }).observe(plane);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colour(); soon(); });

  return {
    element,
    whole,
    zoom,
    look: () => ({ ...view }),
    show(given) {
      items = given.filter(({ x }) => x !== null);
      xs = Float32Array.from(items, ({ x }) => x);
      ys = Float32Array.from(items, ({ y }) => y);
      const of = new Map();
      items.forEach((item) => { if (item.cluster !== null) (of.get(item.cluster) ?? of.set(item.cluster, []).get(item.cluster)).push(item); });
      const median = (all) => all.sort((a, b) => a - b)[all.length >> 1];
      groups = [...of].sort((a, b) => b[1].length - a[1].length).map(([name, own]) => ({ name, x: median(own.map(({ x }) => x)), y: median(own.map(({ y }) => y)) }));
      if (element.isConnected && !pixels) { fit(); whole(); }
      colour();
      paintKey();
      plane.setAttribute("aria-label", `Map of ${plural(items.length, "picture")}: plus and minus zoom, arrows move, 0 shows all. The groups beside it are buttons.`);
      soon();
    },
    colourBy(name, scores = suspicion) { by = name; suspicion = scores; colour(); paintKey(); soon(); },
    choose(ids) { chosen = new Set(ids); soon(); },
    lasso(yes) { lassoing = yes; plane.toggleAttribute("data-lasso", yes); },
  };
}
