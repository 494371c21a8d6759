// One picture of the collection: all its pixels, zoomed and moved by wheel, drag, fingers or keys, and what is known of it.
import { $, announce, bytes, el } from "./dom.js";
import * as api from "./api.js";

const dialog = $("#one"), stage = $("#one-stage"), image = $("img", stage);
let collection = null, item = null, neighbour = () => null, view = { scale: 1, x: 0, y: 0 }, drag = null, path = null, asking = new AbortController();

export function setUp(given) { // `around(id, by)` is the picture before or after
  neighbour = given.around;
  $("[data-close]", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { asking.abort(); image.removeAttribute("src"); given.closed(item); });
  for (const [id, by] of [["#one-previous", -1], ["#one-next", 1]]) $(id).addEventListener("click", () => step(by));
  for (const [id, factor] of [["#zoom-in", 1.5], ["#zoom-out", 1 / 1.5]]) $(id).addEventListener("click", () => zoom(factor));
  $("#zoom-fit").addEventListener("click", whole);
  $("#copy-path").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(path); announce("Copied"); $("#copy-path").textContent = "Copied"; } catch { getSelection().selectAllChildren($("#one-path")); }
  });
  stage.addEventListener("wheel", (event) => { event.preventDefault(); const box = stage.getBoundingClientRect(); zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2); }, { passive: false });
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag = [event.clientX - view.x, event.clientY - view.y]; });
  stage.addEventListener("pointermove", (event) => { if (drag) { view = { ...view, x: event.clientX - drag[0], y: event.clientY - drag[1] }; paint(); } });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { drag = null; });
  stage.addEventListener("dblclick", () => (view.scale > 1 ? whole() : zoom(image.naturalWidth / Math.max(1, image.clientWidth))));
  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (moves && view.scale > 1 && event.target === stage) { view = { ...view, x: view.x + moves[0], y: view.y + moves[1] }; paint(); }
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") whole();
    else return;
    event.preventDefault();
  });
}

function paint() { image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`; }
function whole() { view = { scale: 1, x: 0, y: 0 }; paint(); }
function zoom(factor, x = 0, y = 0) {
  const scale = Math.min(40, Math.max(1, view.scale * factor)), real = scale / view.scale;
  view = scale === 1 ? { scale: 1, x: 0, y: 0 } : { scale, x: x - (x - view.x) * real, y: y - (y - view.y) * real };
  paint();
}
function step(by) { const next = neighbour(item.id, by); if (next) show(collection, next); }

export async function show(name, given) {
  collection = name;
  item = given;
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  whole();
  $("#one-title").textContent = item.file;
  image.alt = item.label === null ? item.file : `${item.label}: ${item.file}`;
  image.src = api.thumbnail(collection, item.id, 640);
  const large = new Image(); // until it is here, the small one is shown
  large.onload = () => { if (!signal.aborted) image.src = large.src; };
  large.src = api.fullSize(collection, item.id);
  $("#one-full").href = api.fullSize(collection, item.id);
  $("#one-full").download = item.file.replace(/\.[^.]*$/, "") + ".jpg";
  $("#one-search").href = `/?${new URLSearchParams({ collection, item: item.id })}`;
  $("#one-previous").disabled = !neighbour(item.id, -1);
  $("#one-next").disabled = !neighbour(item.id, 1);
  $("#copy-path").hidden = true;
  $("#copy-path").textContent = "Copy the path";
  $("#one-facts").replaceChildren();
  if (!dialog.open) dialog.showModal();
  try {
    const told = await api.details(collection, item.id, signal);
    if (signal.aborted) return;
    path = told.path;
    $("#copy-path").hidden = !path;
    const facts = [["Label", told.label ?? "none"], ["Folder", told.folder === "." ? null : told.folder], ["Path", told.path], ["Taken", told.taken], ["File written", told.date?.replace("T", " ").replace("Z", " UTC")],
      ["Pixels", told.width && `${told.width.toLocaleString("en")} × ${told.height.toLocaleString("en")}`], ["Bytes", told.size && bytes(told.size)], ["Camera", told.camera], ...Object.entries(told.metadata).map(([k, v]) => [k, String(v)])];
    $("#one-facts").replaceChildren(...facts.filter(([, value]) => value).map(([fact, value]) => el("div", {}, el("dt", {}, fact), el("dd", { id: fact === "Path" ? "one-path" : null }, value))));
  } catch (error) { if (error.name !== "AbortError") $("#one-facts").replaceChildren(el("div", {}, el("dt", {}, "Wrong"), el("dd", {}, error.message))); }
}
