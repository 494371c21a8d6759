// Arguing with one answer: what is right or wrong, a brush over what should not count, which part goes with which, and the part of the query that counts.
import { $, announce, el, percent } from "./dom.js";
import * as api from "./api.js";

const DAB = 0.04;          // half a brush, as a share of the longer side
const MOST_DABS = 300;
let page = null;           // what the page does with what is said
let shown = null;          // { collection, query, result } of the comparison
let dabs = { query: [], match: [] };
let found = null;          // which part goes with which, once it is known
let asking = new AbortController();

const figures = { query: $("#pair-query"), match: $("#pair-match") };
const mode = () => (shown?.can && (($("#brush").checked && "brush") || ($("#links").checked && "links"))) || null;
const note = (text) => { $("#argue-note").textContent = text; };

// `mark(id, right)`, `region(boxes)`, `use({ right, wrong })`: what to search by next; a box is left, upper, right, lower, as shares of the picture.
export function setUp(given) {
  page = given;
  $("#mark-right").addEventListener("click", () => page.mark(shown.result.id, true));
  $("#mark-wrong").addEventListener("click", () => page.mark(shown.result.id, false));
  for (const [one, other] of [["#brush", "#links"], ["#links", "#brush"]]) $(one).addEventListener("change", () => { $(other).checked = false; clear(); if ($("#links").checked) learnLinks(); });
  $("#brush-clear").addEventListener("click", clear);
  $("#brush-only").addEventListener("change", () => { hint(); brushed(); });
  $("#brush-keep").addEventListener("click", keep);
  for (const [of, figure] of Object.entries(figures)) {
    const stage = $(".stage", figure);
    stage.addEventListener("dragstart", (event) => { if (mode()) event.preventDefault(); }); // the browser would drag the picture, and take the pointer with it
    stage.addEventListener("pointerdown", (event) => { if (mode() === "brush") { stage.setPointerCapture(event.pointerId); dab(of, event); } });
    stage.addEventListener("pointermove", (event) => { if (mode() === "links") light(of, event); else if (mode() === "brush" && stage.hasPointerCapture(event.pointerId)) dab(of, event); });
    stage.addEventListener("pointerup", () => { if (mode() === "brush") brushed(); });
    stage.addEventListener("pointerleave", () => { if (mode() === "links") paint(); });
  }
  setUpRegion();
}

export function show(collection, query, result) {
  shown = { collection, query, result, can: collection.explain && !query.text };
  for (const id of ["#mark-right", "#mark-wrong"]) $(id).hidden = Boolean(query.text);
  $("#argue").hidden = !shown.can;
  for (const figure of Object.values(figures)) $(".stage img", figure)?.addEventListener("load", paint, { once: true });
  clear();
  if (mode() === "links") learnLinks();
}

export function hide() { asking.abort(); shown = null; }

function clear() {
  asking.abort();
  asking = new AbortController();
  dabs = { query: [], match: [] };
  found = null;
  $("#brush-clear").hidden = $("#brush-keep").hidden = true;
  $("#brush-only-row").hidden = mode() !== "brush";
  for (const overlay of document.querySelectorAll("#compare .overlay[data-whole]")) { overlay.src = overlay.dataset.whole; delete overlay.dataset.whole; }
  hint();
  paint();
}

const only = () => $("#brush-only").checked;
const hint = () => note({ brush: `Brush over what should ${only() ? "count, and nothing else of that picture" : "not count"}.`, links: "Working out which part goes with which…" }[mode()] ?? "");

// Where the picture lies in its stage, which it does not fill.
function place(of) {
  const image = $(".stage img:not(.overlay)", figures[of]), stage = $(".stage", figures[of]).getBoundingClientRect();
  if (!image?.naturalWidth) return null;
  const scale = Math.min(stage.width / image.naturalWidth, stage.height / image.naturalHeight);
  const width = image.naturalWidth * scale, height = image.naturalHeight * scale;
  return { left: (stage.width - width) / 2, top: (stage.height - height) / 2, width, height, stage };
}

function at(of, event) { // as shares of the picture; null outside of it
  const is = place(of);
  if (!is) return null;
  const x = (event.clientX - is.stage.left - is.left) / is.width, y = (event.clientY - is.stage.top - is.top) / is.height;
  return x >= 0 && x <= 1 && y >= 0 && y <= 1 ? { x, y, ...is } : null;
}

const clip = (x) => Math.min(1, Math.max(0, x));

function dab(of, event) {
  const here = at(of, event);
  if (!here || dabs[of].length >= MOST_DABS) return;
  const reach = DAB * Math.max(here.width, here.height), [dx, dy] = [reach / here.width, reach / here.height];
  dabs[of].push([clip(here.x - dx), clip(here.y - dy), clip(here.x + dx), clip(here.y + dy)]);
  paint();
}

function canvasOf(of) {
  const stage = $(".stage", figures[of]), is = place(of);
  let canvas = $("canvas", stage);
  if (!is) return null;
  if (!canvas) stage.append(canvas = el("canvas", { "aria-hidden": "true" }));
  Object.assign(canvas, { width: is.stage.width, height: is.stage.height });
  return { pen: canvas.getContext("2d"), ...is };
}

function paint() {
  for (const of of ["query", "match"]) {
    const canvas = shown && canvasOf(of);
    if (!canvas) continue;
    canvas.pen.fillStyle = getComputedStyle(figures[of]).getPropertyValue("--shade") || "gray";
    for (const [left, upper, right, lower] of dabs[of])
      canvas.pen.fillRect(canvas.left + left * canvas.width, canvas.top + upper * canvas.height, (right - left) * canvas.width, (lower - upper) * canvas.height);
    if (of === "match" && shown.result.box) frame(canvas, shown.result.box);
  }
}

function frame(canvas, [left, upper, right, lower]) { // the part that matched
  canvas.pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent") || "orange";
  canvas.pen.lineWidth = 3;
  canvas.pen.strokeRect(canvas.left + left * canvas.width, canvas.top + upper * canvas.height, (right - left) * canvas.width, (lower - upper) * canvas.height);
}

const told = (value) => (shown.collection.kind === "model" ? `log odds ${value.toFixed(2)}` : `cosine ${value.toFixed(3)}`);

// The maps of what is left, where maps are shown.
function repaint(answer) {
  for (const [of, figure] of Object.entries(figures)) {
    const overlay = $(".overlay", figure);
    if (!overlay) continue;
    overlay.dataset.whole ??= overlay.src;
    overlay.src = `data:image/png;base64,${answer[`${of}_overlay`]}`;
  }
}

async function brushed() {
  if (!dabs.query.length && !dabs.match.length) return;
  asking.abort();
  asking = new AbortController();
  const { signal } = asking, { collection, query, result } = shown;
  note("Looking again…");
  try {
    const away = { ...(dabs.query.length && { query_away: dabs.query }), ...(dabs.match.length && { match_away: dabs.match }), only: only() };
    const answer = await api.brush(collection.name, query, result.id, away, signal);
    if (signal.aborted) return;
    const pair = answer.probability === null ? "" : `, as a pair ${percent(answer.probability)} likely to match`;
    const said = `${told(answer.before)}; ${only() ? "with nothing but" : "without"} what is brushed over ${told(answer.after)}${pair}`;
    note(said);
    repaint(answer);
    announce(said);
    $("#brush-clear").hidden = false;
    $("#brush-keep").hidden = !query.item; // a picture that is only asked with is not in the collection, so nothing is learned from it
  } catch (error) { if (error.name !== "AbortError") note(error.message); }
}

async function keep() {
  const { collection, query, result } = shown;
  try {
    for (const of of ["query", "match"]) if (dabs[of].length) await api.stroke(collection.name, { item: query.item, match: result.id, boxes: dabs[of], of, only: only() });
    clear();
    note("Kept. Learn from it under Label.");
  } catch (error) { note(error.message); }
}

async function learnLinks() {
  const { signal } = asking, { collection, query, result } = shown;
  try {
    const answer = await api.links(collection.name, query, result.id, signal);
    if (signal.aborted) return;
    found = answer;
    note("Move over one picture: what goes with it lights up in the other.");
  } catch (error) { if (error.name !== "AbortError") note(error.message); }
}

// The model looks at the central square of a picture.
function square({ left, top, width, height }) {
  const side = Math.min(width, height);
  return { left: left + (width - side) / 2, top: top + (height - side) / 2, side };
}

function cells(canvas, shape, strength) {
  const is = square(canvas), [rows, columns] = shape, most = Math.max(...strength, 1e-9);
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--accent") || "orange";
  strength.forEach((value, k) => {
    if (value <= 0) return;
    canvas.pen.globalAlpha = 0.75 * value / most;
    canvas.pen.fillStyle = colour;
    canvas.pen.fillRect(is.left + (k % columns) * is.side / columns, is.top + Math.floor(k / columns) * is.side / rows, is.side / columns, is.side / rows);
  });
}

function light(of, event) {
  const here = found && at(of, event);
  if (!here) return;
  const other = of === "query" ? "match" : "query", own = found[`${of}_shape`], is = square(here);
  const column = Math.floor((event.clientX - here.stage.left - is.left) / is.side * own[1]), row = Math.floor((event.clientY - here.stage.top - is.top) / is.side * own[0]);
  if (column < 0 || row < 0 || column >= own[1] || row >= own[0]) return;
  const cell = row * own[1] + column, one = canvasOf(of), two = canvasOf(other);
  if (!one || !two) return;
  cells(one, own, Array.from({ length: own[0] * own[1] }, (_, k) => Number(k === cell)));
  cells(two, found[`${other}_shape`], of === "query" ? found.links[cell] : found.links.map((row) => row[cell]));
}

// --- the part of the query that counts: a box, dragged over it, or what is brushed over

const MOST_BOXES = 60, LEAST = 0.02;

// Where the picture lies in its element, which it does not fill.
function placed(image) {
  const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
  const width = image.naturalWidth * scale, height = image.naturalHeight * scale;
  return { left: (image.clientWidth - width) / 2, top: (image.clientHeight - height) / 2, width, height };
}

const exact = (box) => box.map((edge) => Number(edge.toFixed(3)));

function setUpRegion() {
  const image = $("#query-image");
  let from = null, brushed = null; // where a box begins; the boxes of a brush
  const share = (event) => {
    const seen = image.getBoundingClientRect(), is = placed(image);
    return { x: clip((event.clientX - seen.left - is.left) / is.width), y: clip((event.clientY - seen.top - is.top) / is.height) };
  };
  const boxed = (to) => [Math.min(from.x, to.x), Math.min(from.y, to.y), Math.max(from.x, to.x), Math.max(from.y, to.y)];
  const dabAt = ({ x, y }) => {
    const is = placed(image), reach = DAB * Math.max(is.width, is.height), [dx, dy] = [reach / is.width, reach / is.height], last = brushed.at(-1);
    if (brushed.length >= MOST_BOXES || (last && Math.hypot(((last[0] + last[2]) / 2 - x) / dx, ((last[1] + last[3]) / 2 - y) / dy) < 0.7)) return; // as good as there already
    brushed.push(exact([clip(x - dx), clip(y - dy), clip(x + dx), clip(y + dy)]));
    paintRegion(brushed);
  };
  image.draggable = false;
  for (const [one, other] of [["#region-draw", "#region-brush"], ["#region-brush", "#region-draw"]]) $(one).addEventListener("change", () => { $(other).checked = false; });
  image.addEventListener("pointerdown", (event) => {
    if ($("#region-draw").checked) from = share(event);
    else if ($("#region-brush").checked) { brushed = [...(page.asked().region ?? [])]; dabAt(share(event)); }
    else return;
    event.preventDefault();
    image.setPointerCapture(event.pointerId);
  });
  image.addEventListener("pointermove", (event) => { if (from) paintRegion([boxed(share(event))]); else if (brushed) dabAt(share(event)); });
  image.addEventListener("pointerup", (event) => {
    const region = from ? [exact(boxed(share(event)))] : brushed;
    if (!region) return;
    const large = !from || (region[0][2] - region[0][0] > LEAST && region[0][3] - region[0][1] > LEAST);
    from = brushed = null;
    if (large) page.region(region);
    else paintRegion(page.asked().region);
  });
  image.addEventListener("load", () => paintRegion(page.asked().region));
  $("#region-clear").addEventListener("click", () => page.region(null));
  $("#marks-clear").addEventListener("click", () => page.forget());
  $("#marks-kept").addEventListener("click", () => page.use(kept));
}

// What does not count is dimmed.
export function paintRegion(boxes) {
  const image = $("#query-image"), veil = $("#region-box");
  veil.hidden = !boxes?.length || !image.naturalWidth;
  if (veil.hidden) return;
  const is = placed(image), pen = veil.getContext("2d");
  Object.assign(veil.style, { left: `${image.offsetLeft + is.left}px`, top: `${image.offsetTop + is.top}px` });
  Object.assign(veil, { width: is.width, height: is.height });
  pen.fillStyle = "rgb(0 0 0 / 60%)";
  pen.fillRect(0, 0, is.width, is.height);
  for (const [left, upper, right, lower] of boxes) pen.clearRect(left * is.width, upper * is.height, (right - left) * is.width, (lower - upper) * is.height);
}

// --- marks

let kept = null;               // the marks that the collection keeps for the item that is asked with

// Asked for once the answer is there: it is in less of a hurry.
export async function offerKept({ collection, item, right, wrong }) {
  const button = $("#marks-kept");
  let found;
  try { found = await api.examples(collection, item); } catch { return; } // nothing that anybody asked for
  const asked = page.asked();
  if (asked.item !== item || asked.collection !== collection) return;
  if (![...found.right.map((id) => [id, right]), ...found.wrong.map((id) => [id, wrong])].some(([id, there]) => !there.includes(id))) return;
  kept = { right: found.right, wrong: found.wrong };
  button.textContent = `Use the marks that are kept: ${found.right.length} right, ${found.wrong.length} wrong`;
  button.hidden = false;
}

// What is argued about the query, beside it.
export function paintAsked(state, picture) {
  const { region, right, wrong, text } = state;
  $("#asked").hidden = !picture || Boolean(text);
  $("#region-clear").hidden = !region;
  $("#marks-clear").hidden = !right.length && !wrong.length;
  $("#marks-note").textContent = right.length || wrong.length ? `${right.length} right, ${wrong.length} wrong` : "";
  paintRegion(picture ? region : null);
  $("#marks-kept").hidden = true;
  kept = null;
}
