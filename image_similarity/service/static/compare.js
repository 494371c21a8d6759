// The query and one result side by side, and why the model finds them alike: an overlay on each, as strong as one likes.
import { $, announce, baseName, el, percent } from "./dom.js";
import { explain } from "./api.js";
import { altOf, inWords } from "./grid.js";

const dialog = $("#compare");
const overlays = new Map();    // query, result and side to an overlay: its URL, and what it cannot say
const OVERLAYS_KEPT = 40;
const BY_PAGE = "by the page"; // how the dialog was closed when not by the reader
let shown = null;             // { collection, query, answer, result }
let loading = new AbortController();

const remembered = (name, otherwise) => { try { return localStorage.getItem(name) ?? otherwise; } catch { return otherwise; } };
const remember = (name, value) => { try { localStorage.setItem(name, value); } catch { /* not kept, then */ } };

// `close()` when the reader is done, `step(id)` to another result, `more(item)` to search with it.
export function setUp({ close, step, more }) {
  dialog.addEventListener("close", () => { if (dialog.returnValue !== BY_PAGE) close(); });
  $("[data-close]", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  const by = (offset) => { const next = neighbour(offset); if (next) step(next.id); };
  $("#previous").addEventListener("click", () => by(-1));
  $("#next").addEventListener("click", () => by(1));
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input[type=range]") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") by(-1);
    if (event.key === "ArrowRight") by(1);
  });
  let from = null; // a finger that swipes
  $(".pair", dialog).addEventListener("touchstart", (event) => { from = event.touches.length === 1 && !$("#brush").checked && !$("#links").checked ? [event.touches[0].clientX, event.touches[0].clientY] : null; }, { passive: true });
  $(".pair", dialog).addEventListener("touchend", (event) => {
    const [dx, dy] = from ? [event.changedTouches[0].clientX - from[0], event.changedTouches[0].clientY - from[1]] : [0, 0];
    if (Math.abs(dx) > 48 && Math.abs(dx) > 2 * Math.abs(dy)) by(dx < 0 ? 1 : -1);
    from = null;
  });
  $("#compare-more").addEventListener("click", () => more(shown.result));
  $("#overlay").checked = remembered("overlay", "on") === "on";
  $("#opacity").value = remembered("opacity", "0.6");
  $("#overlay").addEventListener("change", (event) => { remember("overlay", event.target.checked ? "on" : "off"); paintOverlays(); });
  $("#opacity").addEventListener("input", (event) => { remember("opacity", event.target.value); paintOpacity(); });
}

function neighbour(offset) {
  const { results } = shown.answer;
  return results[results.findIndex(({ id }) => id === shown.result.id) + offset];
}

export function hide() {
  loading.abort();
  if (dialog.open) dialog.close(BY_PAGE);
}

export function show(collection, query, answer, result) {
  const again = shown?.answer === answer && shown?.result.id === result.id && dialog.open;
  shown = { collection, query, answer, result };
  if (again) return;
  const words = inWords(result, answer.compared_by);
  $("#compare-title").textContent = words[0].toUpperCase() + words.slice(1);
  const asked = query.url && { url: query.url, alt: `The query: ${baseName(query.name)}` };
  fill($("#pair-query"), asked, asked && query.text ? `Query, and “${query.text}”` : "Query", asked ? baseName(query.name) : "", query.text);
  fill($("#pair-match"), { url: result.image, alt: altOf(result) }, `Result ${result.rank} of ${answer.results.length}`, baseName(result.file));
  const facts = [["Label", result.label ?? "none"], ["File", result.file], ...Object.entries(result.metadata).map(([name, value]) => [name, String(value)])];
  $("#facts").replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  $("#previous").disabled = !neighbour(-1);
  $("#next").disabled = !neighbour(1);
  const opening = !dialog.open;
  dialog.returnValue = "";
  if (opening) dialog.showModal();
  if (opening || !dialog.contains(document.activeElement) || document.activeElement.disabled) dialog.focus();
  announce(`${$("#compare-title").textContent}. ${altOf(result)}`);
  paintOverlays();
}

function fill(figure, picture, role, name, text = "") {
  const stage = $(".stage", figure);
  if (picture) {
    const image = el("img", { src: picture.url, alt: picture.alt });
    image.addEventListener("error", () => stage.replaceChildren(el("p", { class: "no-preview" }, "This picture cannot be shown.")), { once: true });
    stage.replaceChildren(image);
  } else stage.replaceChildren(el("blockquote", {}, `“${text}”`));
  $("figcaption", figure).replaceChildren(el("span", { class: "role" }, role), el("span", { class: "file", title: name }, name));
}

function paintOpacity() {
  const opacity = $("#opacity").value;
  $("#opacity-row output").textContent = percent(opacity, 0);
  for (const overlay of dialog.querySelectorAll(".overlay")) overlay.style.opacity = opacity;
}

const note = (text) => { $("#why-note").textContent = text; };

async function paintOverlays() {
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  const { collection, query, result } = shown;
  const possible = collection.explain && !query.text;
  const on = possible && $("#overlay").checked;
  $("#why").hidden = !possible;
  $("#opacity-row").hidden = !on;
  $(".legend", dialog).hidden = !on;
  for (const overlay of dialog.querySelectorAll(".overlay, .look")) overlay.remove();
  paintOpacity();
  if (!on) return note(possible ? "" : query.text ? "A query with words cannot be explained." : "This collection’s model cannot show why.");
  note("Working out why…");
  dialog.setAttribute("aria-busy", "true");
  let said = "";
  try {
    for (const [which, figure] of [["query", $("#pair-query")], ["match", $("#pair-match")]]) {
      const { url, caveat } = await overlayOf(collection, query, result, which, signal);
      if (signal.aborted) return;
      $(".stage", figure).append(el("img", { class: "overlay", src: url, alt: "" }));
      paintOpacity();
      said = caveat && `${caveat[0].toUpperCase()}${caveat.slice(1)}.`;
      paintLook($(".stage", figure));
    }
    note(said);
  } catch (error) {
    if (error.name === "AbortError") return;
    note(error.code === "unreachable" ? "The server is not responding: switch this off and on to try again." : error.message);
  } finally {
    if (!signal.aborted) dialog.removeAttribute("aria-busy");
  }
}

// The encoder looks at the central square: drawn, so that a map that ends there is understood.
function paintLook(stage) {
  const image = $("img:not(.overlay)", stage), [w, h] = [image?.naturalWidth, image?.naturalHeight];
  $(".look", stage)?.remove();
  if (!w || Math.max(w, h) / Math.min(w, h) < 1.03) return;
  const scale = Math.min(stage.clientWidth / w, stage.clientHeight / h), side = Math.min(w, h) * scale, frame = el("span", { class: "look", "aria-hidden": "true" });
  Object.assign(frame.style, { inlineSize: `${side}px`, blockSize: `${side}px`, left: `${(stage.clientWidth - side) / 2}px`, top: `${(stage.clientHeight - side) / 2}px` });
  stage.append(frame);
}
addEventListener("resize", () => { for (const frame of dialog.querySelectorAll(".look")) paintLook(frame.parentElement); });

async function overlayOf(collection, query, result, which, signal) {
  const key = `${query.key} ${result.id} ${which}`;
  if (!overlays.has(key)) {
    const { layer, caveat } = await explain(collection.name, query, result.id, which, signal);
    overlays.set(key, { url: URL.createObjectURL(layer), caveat });
    if (overlays.size > OVERLAYS_KEPT) {
      const [oldest, old] = overlays.entries().next().value;
      URL.revokeObjectURL(old.url);
      overlays.delete(oldest);
    }
  }
  return overlays.get(key);
}
