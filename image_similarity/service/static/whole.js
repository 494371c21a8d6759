// The collection as a whole: grid, map and problems show the same pictures, filtered the same way, with one selection.
import { $, announce, el, plural } from "./dom.js";
import * as api from "./api.js";
import { makeChart } from "./chart.js";
import { makeMend } from "./mend.js";
import * as one from "./one.js";
import { makeWall } from "./wall.js";
import * as working from "./working.js";

const VIEWS = { grid: "Grid", map: "Map", problems: "Problems" };
const EVERY = 1000; // ms between two looks at a job
let name = null, view = "grid", items = [], shown = [], chosen = [], told = null, order = null, undoing = [], job = null, gone = 0;

const remembered = (what, otherwise) => { try { return localStorage.getItem(what) ?? otherwise; } catch { return otherwise; } };
const remember = (what, value) => { try { localStorage.setItem(what, value); } catch { /* not kept, then */ } };
const thumbnail = (id, size) => api.thumbnail(name, id, size);
const wrong = (text) => { $("#wrong").textContent = text; };
async function tried(work) {
  wrong("");
  try { return await work(); } catch (error) { if (error.name !== "AbortError") wrong(error.message); return undefined; }
}

const byId = (id) => items.find((item) => item.id === id);
const wall = makeWall({ thumbnail, on: { chosen: choose, open: (item) => one.show(name, item), broken } });
const chart = makeChart({ thumbnail, on: { chosen: choose, open: (item) => one.show(name, item) } });
const mend = makeMend({ thumbnail, on: {
  open: (id) => { const item = byId(id); if (item) one.show(name, item); },
  relabel: (findings) => relabel(findings.map(({ id, likely }) => ({ ids: [id], label: likely }))),
  exclude: (findings) => exclude(findings.map(({ id }) => id), true),
} });
one.setUp({ around: (id, by) => wall.around(id, by) ?? null, closed: (item) => { if (view === "grid" && item) { wall.go(item.id); wall.element.focus(); } } });

// --- what there is

async function load() {
  const table = await api.table(name), excluded = new Set(table.excluded);
  items = table.ids.map((id, i) => ({
    id, file: table.files[i], label: table.label[i] === null ? null : table.labels[table.label[i]], folder: table.folders[table.folder[i]], date: table.date[i], size: table.size[i],
    x: table.x[i], y: table.y[i], cluster: table.cluster[i] === null ? null : table.clusters[table.cluster[i]], excluded: excluded.has(id),
  }));
  const options = (select, names, none) => {
    const before = select.value;
    select.replaceChildren(el("option", { value: "*" }, "any"), ...names.map((n) => el("option", { value: `=${n}` }, n)), ...(none ? [el("option", { value: "-" }, none)] : []));
    select.value = [...select.options].some(({ value }) => value === before) ? before : "*";
  };
  const labels = [...new Set(items.map(({ label }) => label).filter((label) => label !== null))].sort();
  options($("#label"), labels, items.some(({ label }) => label === null) && "no label");
  $("#labels").replaceChildren(...labels.map((label) => el("option", { value: label })));
  options($("#folder"), [...new Set(items.map(({ folder }) => folder))].sort(), null);
  $("#folder-row").hidden = new Set(items.map(({ folder }) => folder)).size < 2;
  const there = new Set(items.map(({ id }) => id));
  chosen = chosen.filter((id) => there.has(id));
}

const SORTS = {
  id: (a, b) => a.id - b.id, name: (a, b) => a.file.localeCompare(b.file, "en", { numeric: true }), date: (a, b) => (b.date ?? 0) - (a.date ?? 0),
  size: (a, b) => (b.size ?? 0) - (a.size ?? 0), folder: (a, b) => a.folder.localeCompare(b.folder, "en", { numeric: true }) || a.file.localeCompare(b.file, "en", { numeric: true }),
  label: (a, b) => (a.label ?? "\uffff").localeCompare(b.label ?? "\uffff") || a.id - b.id, similarity: (a, b) => order.get(a.id) - order.get(b.id),
};

function filtered() {
  const label = $("#label").value, folder = $("#folder").value, named = $("#named").value.trim().toLowerCase();
  return items.filter((item) => (label === "*" || (label === "-" ? item.label === null : item.label === label.slice(1)))
    && (folder === "*" || item.folder === folder.slice(1)) && (!named || item.file.toLowerCase().includes(named)));
}

async function sortBySimilarity() {
  const from = wall.current() ?? items[0];
  if (!from) return;
  const ids = await api.ranking(name, from.id);
  order = new Map([[from.id, -1], ...ids.map((id, n) => [id, n])]);
  for (const { id } of items) if (!order.has(id)) order.set(id, ids.length);
}

function paint() {
  shown = filtered();
  const sort = $("#sort").value;
  shown.sort(SORTS[sort === "similarity" && !order ? "id" : sort]);
  $("#count").textContent = shown.length === items.length ? `${plural(items.length, "picture")} in ${name}` : `${shown.length.toLocaleString("en")} of ${plural(items.length, "picture")} in ${name}`;
  wall.show(shown);
  paintView();
  paintChosen();
}

function paintView() {
  document.title = `${VIEWS[view]} of ${name} · image_similarity`;
  $("#title").textContent = `${VIEWS[view]} of ${name}`;
  for (const tab of document.querySelectorAll("[data-view]")) {
    tab.href = address({ view: tab.dataset.view });
    if (tab.dataset.view === view) tab.setAttribute("aria-current", "page"); else tab.removeAttribute("aria-current");
  }
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== view;
  const stage = $("#stage"), mapped = items.some(({ x }) => x !== null);
  const put = (element) => { if (stage.firstChild !== element) stage.replaceChildren(element); };
  if (!items.length) put(panel("No pictures yet", "Add some on the page where one searches.", null));
  else if (view === "grid") put(wall.element);
  else if (view === "map" && !mapped) put(panel("No map yet", "A map lays similar pictures side by side. It is drawn once, in the background; pictures that come later find their place by themselves.", ["Draw the map", drawMap]));
  else if (view === "map") { put(chart.element); chart.colourBy($("#colour").value, suspicion()); chart.show(shown); chart.choose(chosen); }
  else if (!told) put(panel("Not inspected yet", "An inspection looks for labels that are probably wrong, copies that contradict each other, loners and bad pictures.", ["Inspect", inspect]));
  else { put(mend.element); mend.show({ ...told, findings: told.findings.filter(({ id }) => shownIds().has(id)) }, items); }
  if (view === "problems" && told) $("#count").textContent = `${mend.summary()}${told.stale ? "; pictures came or went since" : ""}`;
  if (view === "grid") wall.choose(chosen);
}

const shownIds = () => new Set(shown.map(({ id }) => id));
const suspicion = () => new Map((told?.findings ?? []).map(({ id, score }) => [id, score]).sort((a, b) => a[1] - b[1]));

function panel(title, text, action) {
  return el("div", { class: "panel nothing" }, el("h2", {}, title), el("p", {}, text), action && el("div", { class: "panel-actions" }, el("button", { type: "button", class: "main", onclick: action[1] }, action[0])));
}

function address(changes) {
  const asked = { collection: name, view, label: $("#label").value, folder: $("#folder").value, sort: $("#sort").value, ...changes };
  return `/whole?${new URLSearchParams(Object.entries(asked).filter(([k, v]) => v && v !== "*" && !(k === "sort" && v === "id")))}`;
}
const written = () => history.replaceState(null, "", address({}));

async function changed() { // by whoever
  await tried(async () => { await load(); if (told) told = await findings(); });
  paint();
}

async function findings() {
  try { return await api.findings(name); } catch (error) { if (error.code === "not_found") return null; throw error; }
}

// --- the selection

function choose(ids) {
  chosen = ids;
  wall.choose(ids);
  chart.choose(ids);
  paintChosen();
}

function paintChosen() {
  $("#chosen-bar").hidden = !chosen.length;
  $("#chosen-count").textContent = `${chosen.length.toLocaleString("en")} selected`;
  $("#open-one").hidden = chosen.length !== 1;
  const away = new Set(items.filter(({ excluded }) => excluded).map(({ id }) => id));
  $("#include").hidden = !chosen.some((id) => away.has(id));
  $("#exclude").hidden = chosen.length > 0 && chosen.every((id) => away.has(id));
  if (chosen.length) announce(`${plural(chosen.length, "picture")} selected`);
}

function undoable(text, undo) {
  undoing.push({ text, undo });
  paintUndo();
  announce(text);
}
function paintUndo() {
  const last = undoing.at(-1);
  $("#undo").hidden = !last;
  if (last) $("#undo").textContent = `Undo: ${last.text}`;
}
async function undo() {
  const last = undoing.pop();
  if (!last) return;
  paintUndo();
  await tried(last.undo);
  await changed();
}

async function relabel(changes) {
  const before = await tried(() => api.relabel(name, changes));
  if (!before) return;
  const n = before.reduce((sum, { ids }) => sum + ids.length, 0);
  if (n) undoable(`labelled ${plural(n, "picture")}`, () => api.relabel(name, before));
  await changed();
}

async function exclude(ids, excluded) {
  const done = await tried(() => api.exclude(name, ids, excluded));
  if (!done) return;
  undoable(`${excluded ? "excluded" : "included"} ${plural(done.items, "picture")}`, () => api.exclude(name, ids, !excluded));
  await changed();
}

function askToRemove() {
  $("#sure-title").textContent = `Remove ${plural(chosen.length, "picture")} from ${name}?`;
  $("#sure-text").textContent = "Files that lie in folders of this machine stay where they are. Pictures that were sent to the service are deleted. This cannot be undone.";
  $("#sure").showModal();
}

async function remove() {
  $("#sure").close();
  const done = await tried(() => api.takeOut(name, chosen));
  if (!done) return;
  announce(`${plural(done.items, "picture")} removed`);
  chosen = [];
  await changed();
}

function save(blob, as) {
  const link = el("a", { href: URL.createObjectURL(blob), download: as });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function broken() {
  gone += 1;
  $("#gone").hidden = false;
  $("#gone").replaceChildren(`${plural(gone, "picture")} cannot be shown: the files were moved or deleted. Where they lie now, say: `, el("code", {}, `image_similarity index NEW_FOLDER ${name}`), ` ; what is gone for good: `, el("code", {}, `image_similarity gallery check ${name}`));
}

// --- jobs

async function watch(started) {
  job = started.id;
  $("#job").hidden = false;
  for (;;) {
    const now = await tried(() => api.job(job));
    if (!now) return false;
    $("#job-stage").textContent = `${{ map: "The map", inspect: "The inspection" }[now.kind] ?? now.kind}: ${now.stage}, ${now.percent}%`;
    $("progress", $("#job")).value = now.percent;
    if (!["queued", "running"].includes(now.state)) {
      $("#job").hidden = true;
      if (now.state !== "done") wrong(now.message ?? `It was ${now.state}.`);
      return now.state === "done";
    }
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

async function drawMap() {
  const started = await tried(() => api.drawMap(name));
  if (started && await watch(started)) { await changed(); chart.whole(); announce("The map is drawn"); }
}

async function inspect() {
  const started = await tried(() => api.inspect(name));
  if (started && await watch(started)) { told = await tried(findings) ?? null; paint(); announce("The inspection is done"); }
}

// --- begin

async function begin() {
  const asked = new URLSearchParams(location.search), names = (await api.collections()).map(({ name: n }) => n);
  $("#collection").replaceChildren(...names.map((n) => el("option", { value: n }, n)));
  name = names.includes(asked.get("collection")) ? asked.get("collection") : names.includes(remembered("collection", null)) ? remembered("collection", null) : names[0];
  view = asked.get("view") in VIEWS ? asked.get("view") : "grid";
  if (name === undefined) { $("#stage").replaceChildren(panel("No collections yet", "Make one on the page where one searches.", null)); return; }
  $("#collection").value = name;
  remember("collection", name);
  for (const link of [$("#to-search"), $("#search-link")]) link.href = `/?${new URLSearchParams({ collection: name })}`;
  $("#tile").value = remembered("tile", "168");
  wall.resize(Number($("#tile").value));
  await load();
  told = await findings();
  for (const which of ["label", "folder", "sort"]) if ([...$(`#${which}`).options].some(({ value }) => value === asked.get(which))) $(`#${which}`).value = asked.get(which);
  if ($("#sort").value === "similarity") await sortBySimilarity();
  paint();
  if (items.some(({ x }) => x === null) && items.some(({ x }) => x !== null) && (await api.placeNew(name).catch(() => null))?.items) await changed(); // what is only read keeps none
}

for (const id of ["#label", "#folder", "#named"]) $(id).addEventListener(id === "#named" ? "input" : "change", () => { written(); paint(); });
$("#sort").addEventListener("change", async () => { if ($("#sort").value === "similarity") await tried(sortBySimilarity); written(); paint(); wall.element.scrollTop = 0; });
$("#tile").addEventListener("input", () => { remember("tile", $("#tile").value); wall.resize(Number($("#tile").value)); });
$("#colour").addEventListener("change", () => chart.colourBy($("#colour").value, suspicion()));
$("#lasso").addEventListener("click", () => { const on = $("#lasso").getAttribute("aria-pressed") !== "true"; $("#lasso").setAttribute("aria-pressed", on); chart.lasso(on); });
$("#map-whole").addEventListener("click", () => chart.whole());
$("#map-anew").addEventListener("click", drawMap);
$("#inspect-again").addEventListener("click", inspect);
$("#findings-csv").addEventListener("click", () => save(new Blob([mend.csv()], { type: "text/csv" }), `${name}_findings.csv`));
$("#collection").addEventListener("change", () => location.assign(`/whole?${new URLSearchParams({ collection: $("#collection").value, view })}`));
for (const tab of document.querySelectorAll("[data-view]")) tab.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", address({ view: tab.dataset.view }));
  view = tab.dataset.view;
  paint();
});
addEventListener("popstate", () => { view = new URLSearchParams(location.search).get("view") ?? "grid"; paint(); });
$("#label-form").addEventListener("submit", (event) => { event.preventDefault(); const label = $("#new-label").value.trim(); if (chosen.length) relabel([{ ids: chosen, label: label || null }]); });
$("#open-one").addEventListener("click", () => one.show(name, byId(chosen[0])));
$("#exclude").addEventListener("click", () => exclude(chosen, true));
$("#include").addEventListener("click", () => exclude(chosen, false));
$("#remove").addEventListener("click", askToRemove);
$("#sure-no").addEventListener("click", () => $("#sure").close());
$("#sure-yes").addEventListener("click", remove);
$("#export").addEventListener("click", () => tried(async () => {
  const kind = $("#export-kind").value;
  save(await api.exported(name, chosen, kind), `${name}_${{ paths: "paths.txt", csv: "items.csv", zip: "pictures.zip" }[kind]}`);
}));
$("#clear").addEventListener("click", () => choose([]));
$("#undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.target.matches("input:not([type=range]), select")) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && undoing.length) { event.preventDefault(); undo(); }
  if (event.key === "Delete" && chosen.length) askToRemove();
});
working.setUp();
$("#stage").setAttribute("aria-busy", "true");
tried(begin).finally(() => $("#stage").removeAttribute("aria-busy"));
