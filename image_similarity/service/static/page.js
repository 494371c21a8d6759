// The page: holds the state, which is the address, asks the server, and has the parts drawn.
import { $, announce, baseName, el, plural } from "./dom.js";
import * as address from "./address.js";
import * as api from "./api.js";
import * as argue from "./argue.js";
import * as ask from "./ask.js";
import * as compare from "./compare.js";
import * as dialogs from "./dialogs.js";
import { altOf, focusTile, grid, inWords, skeleton } from "./grid.js";
import * as jobs from "./jobs.js";
import * as pictures from "./pictures.js";
import * as problems from "./problems.js";
import * as refine from "./refine.js";
import * as teach from "./teach.js";
import * as working from "./working.js";

const ANSWERS_KEPT = 20;
const MOST_RECOMMENDED = 100;  // that the service gives for one item

let state = address.BLANK;
let service = null;            // what the server says of itself
let names = null;              // of the collections
let info = null;               // the shown collection
let query = null;              // what is asked, see ask.js; null while the collection is shown as it is
let drawn = null;              // { key, answer, count } of what the results show
let compared = null;           // { answer, id } of the result that was compared last
let moved = false;             // whether the reader just asked for something else
let running = new AbortController();
const answers = new Map();     // search key to answer: Back is immediate
const items = new Map();       // "collection id" to item, of queries

const results = $("#results");

// --- the state

function go(changes, { replace = false } = {}) {
  state = { ...state, ...changes };
  if (replace) history.replaceState(history.state, "", address.write(state));
  else history.pushState({ openedMatch: Boolean(changes.match) }, "", address.write(state));
  moved = !replace;
  return show();
}

const asking = { item: null, picture: null, text: "", count: address.COUNT, view: null, match: null, right: [], wrong: [], region: null };
let unsaid = null;             // a mark that is kept as soon as the query has a name
function searchFor(changes) {
  const next = { ...state, ...asking, mix: address.BLANK.mix, ...changes };
  return go({ ...next, threshold: comparedBy(next) === comparedBy(state) ? state.threshold : 0 }); // a threshold is about one scale
}
const refineBy = (changes) => go({ ...changes, match: null });

// One picture is searched with; several, or a zip, are offered to the collection.
async function take(files) {
  if (files.length !== 1 || dialogs.isZip(files[0])) return dialogs.openAdd(files);
  return searchFor({ picture: await pictures.keep(files[0]), text: info?.text ? state.text : "" });
}

function toCollection(name) {
  remember(name);
  return go({ ...address.BLANK, collection: name }); // a query is about one collection
}

const remember = (name) => { try { localStorage.setItem("collection", name); } catch { /* not kept, then */ } };
const remembered = () => { try { return localStorage.getItem("collection"); } catch { return null; } };

// --- what the server says

async function learnOfService() {
  service ??= await api.service();
  names ??= (await api.collections()).map(({ name }) => name);
}

async function chooseCollection() {
  if (state.collection === null && names.length) {
    state = { ...state, collection: names.includes(remembered()) ? remembered() : names[0] };
    history.replaceState(history.state, "", address.write(state));
  }
  paintCollections();
  if (info?.name !== state.collection) info = null;
  if (state.collection !== null) info ??= await api.collection(state.collection, running.signal);
}

function paintCollections() {
  const shown = state.collection === null || names.includes(state.collection) ? names : [...names, state.collection];
  $("#collection").replaceChildren(...shown.map((name) => el("option", { value: name }, name)));
  $("#collection").value = state.collection ?? "";
  $("#collection").disabled = !shown.length;
  $("#whole-link").href = `/whole?${new URLSearchParams(state.collection === null ? {} : { collection: state.collection })}`;
  $("#sign-out").hidden = !service.token;
}

async function queryOf(signal) {
  const { item, picture, text, mix } = state;
  const words = info.text ? text : "";
  const key = `${info.name} ${item} ${picture} ${words}`;
  if (picture) {
    const kept = await pictures.recall(picture);
    if (!kept) throw new api.ApiError(0, "forgotten", "");
    return { key, picture: kept.blob, name: kept.name, url: ask.urlOf(kept.blob), text: words, mix };
  }
  if (item) {
    const at = `${info.name} ${item}`;
    if (!items.has(at)) items.set(at, await api.item(info.name, item, signal));
    const { file, image, label } = items.get(at);
    return { key, item, name: file, url: image, label, text: words, mix };
  }
  return words ? { key, text: words, name: words } : null;
}

// What results are compared by: the API's `compared_by`, known before there is an answer.
function comparedBy({ item, picture, text }) {
  if (text && info?.text) return item || picture ? "mixture" : "cosine";
  return info?.kind === "model" ? "probability" : "cosine";
}

async function answerOf(signal) {
  const key = address.searchKey(state);
  if (drawn?.key === key) return drawn.answer;
  if (answers.has(key)) return answers.get(key);
  const answer = await ({ recommended: recommend, duplicates: findCopies }[address.viewOf(state)] ?? (query ? search : browse))(signal);
  answers.set(key, answer);
  if (answers.size > ANSWERS_KEPT) answers.delete(answers.keys().next().value);
  return answer;
}

async function search(signal) {
  if (query.picture?.size > service.limits.query_bytes) throw new api.ApiError(413, "too_large", "");
  const options = { top_k: Math.min(state.count, service.limits.top_k), hide_duplicates: state.hideDuplicates };
  const where = address.whereOf(state, info);
  if (Object.keys(where).length) options.where = where;
  if (address.isArgued(state)) return arguedSearch(options, signal);
  if (state.threshold) options.threshold = state.threshold;
  if (state.coverage && comparedBy(state) === "probability") Object.assign(options, { coverage: state.coverage, top_k: service.limits.top_k }); // a set that is cut promises nothing
  const answer = await api.search(info.name, query, options, signal);
  const seen = answer.results.length + answer.below_threshold + answer.hidden_duplicates;
  return { ...answer, more: !answer.coverage && seen >= state.count && state.count < service.limits.top_k };
}

async function arguedSearch({ top_k, where }, signal) {
  const { right, wrong, region } = state;
  const answer = await api.argue(info.name, query, { top_k, right, wrong, ...(where && { where }), ...(region && { region }) }, signal);
  if (unsaid) keepMark(unsaid, query.item ? { item: query.item } : { picture: answer.picture });
  unsaid = null;
  return { ...answer, query: {}, below_threshold: 0, hidden_duplicates: 0, more: answer.results.length >= state.count && state.count < service.limits.top_k };
}

function keepMark({ id, right }, asked) {
  api.mark(info.name, { ...asked, right: right ? [id] : [], wrong: right ? [] : [id] }).catch((error) => announce(`The mark counts here, and is not kept: ${error.message}`));
}

function mark(id, right) {
  const without = { right: state.right.filter((other) => other !== id), wrong: state.wrong.filter((other) => other !== id) };
  const side = right ? "right" : "wrong";
  unsaid = { id, right };
  return go({ ...without, [side]: [...without[side], id], match: null }, { replace: Boolean(history.state?.openedMatch) }); // Back leads to what was there before, not to the comparison
}

async function browse(signal) {
  const { items: page, total, next } = await api.items(info.name, address.whereOf(state, info), 0, state.count, signal);
  return { results: page, total, more: next !== null && state.count < service.limits.top_k };
}

async function recommend(signal) {
  const most = Math.min(service.limits.top_k, MOST_RECOMMENDED);
  const { results } = await api.recommendations(info.name, state.item, Math.min(state.count, most), signal);
  const near = results.filter(({ probability, pair_probability, score }) => (comparedBy(state) === "probability" ? probability ?? pair_probability : score) >= state.threshold);
  return { results: state.threshold ? near : results, query: {}, compared_by: comparedBy(state), below_threshold: state.threshold ? results.length - near.length : 0, hidden_duplicates: 0, more: results.length >= state.count && state.count < most };
}

// What a job has found, or has found so far; where none has looked yet, one begins.
async function copiesSoFar(signal) {
  try { return await api.keptCopies(info.name, signal); } catch (error) {
    if (error.code !== "not_found") throw error;
    try { await lookForCopies(); } catch (refusal) {
      if (refusal.code !== "forbidden") throw refusal;
      return api.duplicates(info.name, {}, signal); // a gallery that is served as it is keeps nothing
    }
    return { groups: [], total: 0, partial: true };
  }
}

async function lookForCopies() { jobs.watch({ name: info.name, jobs: [(await api.findCopies(info.name)).id] }); }

async function decide(keep, copy, verdict) {
  await api.decide(info.name, keep.id, copy.id, verdict);
  announce(`Remembered: ${verdict}.`);
  return changed();
}

async function findCopies(signal) {
  const where = address.whereOf(state, info);
  const { groups, total, partial, stale } = Object.keys(where).length ? await api.duplicates(info.name, where, signal) : await copiesSoFar(signal);
  return { groups, partial, stale, total, results: groups.flatMap(({ keep, copies }) => [keep, ...copies.map(({ item }) => item)]), more: false };
}

// --- drawing

async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  results.setAttribute("aria-busy", "true");
  try {
    await learnOfService();
    await chooseCollection();
    if (signal.aborted) return;
    if (info === null) { showPanel(problems.noCollections({ create: dialogs.openCreate })); return; }
    query = null;
    const asked = await queryOf(signal);
    if (signal.aborted) return;
    query = asked;
    paintControls();
    jobs.watch(info);
    if (!info.items) { compare.hide(); showPanel(problems.emptyCollection(info, service, { add: () => dialogs.openAdd() })); return; }
    if (drawn?.key !== address.searchKey(state) && !answers.has(address.searchKey(state))) showWaiting();
    const answer = await answerOf(signal);
    if (signal.aborted) return;
    showAnswer(answer);
    showMatch(answer);
    if (query?.item && !query.text) argue.offerKept(state);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    compare.hide();
    if (info) paintControls();
    showPanel(problems.problem(error, query, service?.limits, { retry, choose, browse: browseAll, shrink: shrinkQuery }), true);
    if (!(error instanceof api.ApiError)) throw error;
  } finally {
    if (!signal.aborted) results.removeAttribute("aria-busy");
  }
}

function paintControls() {
  ask.paint(query, state, info);
  argue.paintAsked(state, query?.url);
  refine.paint(state, info, comparedBy(state));
  paintViews();
  document.title = `${query ? `${query.name} in ` : ""}${info.name} · image_similarity`;
}

function paintViews() {
  const box = $("#views");
  const views = info.items > 1 ? address.viewsOf(state) : [];
  box.hidden = !views.length;
  if (box.dataset.views !== String(views)) { // otherwise the one that was pressed stays, with its focus
    box.dataset.views = String(views);
    box.replaceChildren(...views.map(([view, name]) =>
      el("button", { type: "button", class: "quiet", onclick: () => go({ view, count: address.COUNT, match: null }) }, name)));
  }
  views.forEach(([view], k) => box.children[k].setAttribute("aria-pressed", view === address.viewOf(state)));
}

function showWaiting() {
  announce(query ? "Searching" : "Loading");
  $("#results-title").textContent = titleOf();
  $("#results-note").textContent = query ? "Searching…" : "Loading…";
  compare.hide();
  const before = results.querySelector(".grid:not(.waiting)");
  if (moved || !before) results.replaceChildren(skeleton(12)); // what is there would be clicked under the title of what comes
  if (moved) toTop();
}

function showPanel(panel, bad = false) {
  drawn = null;
  $("#results-title").textContent = titleOf();
  $("#results-note").textContent = "";
  const focused = results.contains(document.activeElement);
  results.replaceChildren(panel);
  if (bad || focused) panel.querySelector("button")?.focus({ preventScroll: !bad });
}

function showAnswer(answer) {
  const key = address.searchKey(state);
  if (query && answer.query?.predicted) ask.paintPredicted(answer.query.predicted);
  if (drawn?.answer === answer) return;
  if (!answer.results.length) return showPanel(problems.nothing(answer, state, info, { say: refineBy, clear: () => refineBy(refine.NOTHING), again: lookForCopies }));
  const before = drawn?.answer.results.length ?? 0;
  const longer = drawn && address.searchKey({ ...state, count: drawn.count }) === drawn.key && state.count > drawn.count;
  const asked = moved, lost = moved && (results.contains(document.activeElement) || document.activeElement === document.body);
  moved = false;
  for (const item of answer.results) items.set(`${info.name} ${item.id}`, item); // each may be the next query
  drawn = { key, answer, count: state.count };
  $("#results-title").textContent = titleOf();
  $("#results-note").textContent = noteOf(answer);
  const actions = {
    comparedBy: answer.compared_by,
    labelled: info.labels.some(({ label }) => label !== null),
    open: (item) => (query ? go({ match: item.id }) : searchFor({ item: item.id })),
    more: (item) => searchFor({ item: item.id }),
  };
  results.replaceChildren(...(answer.groups ? answer.groups.map((group) => groupOf(group, actions)) : [grid(answer.results, actions)]));
  if (answer.groups && (answer.stale || answer.partial)) results.append(el("button", { type: "button", class: "look-again", onclick: lookForCopies }, "Look for copies again"));
  if (answer.more) results.append(el("button", { type: "button", class: "show-more", onclick: () => go({ count: Math.min(2 * state.count, service.limits.top_k) }, { replace: true }) }, "Show more"));
  const first = answer.results[0]; // the most similar, of recommended pictures too
  announce(query ? `${plural(answer.results.length, "picture")} found. Most similar: ${altOf(first)}, ${inWords(first, answer.compared_by)}` : noteOf(answer));
  if (longer) focusTile(answer.results[Math.min(before, answer.results.length - 1)].id);
  else if (lost) results.focus({ preventScroll: true });
  if (asked) toTop();
}

// The best is to be seen at once: on a phone it is below the query.
function toTop() {
  const narrow = matchMedia("(max-width: 60rem)").matches && query;
  if (narrow) $(".results-head").scrollIntoView({ block: "start" });
  else scrollTo({ top: 0 });
}

function groupOf({ keep, why, copies }, actions) {
  const notes = new Map([[keep.id, `keep: ${why}`], ...copies.map(({ item, relation }) => [item.id, relation])]);
  return el("section", { class: "copies" }, el("h3", {}, `The same photo, ${copies.length + 1} times`),
    grid([keep, ...copies.map(({ item }) => item)], { ...actions, note: ({ id }) => notes.get(id) }),
    el("ul", { class: "decisions", role: "list" }, ...copies.map(({ item }) => el("li", {}, `${baseName(item.file)}: `,
      ...["keep both", "not copies"].map((verdict) => el("button", { type: "button", "aria-label": `${verdict}: ${baseName(item.file)}`, onclick: () => decide(keep, item, verdict) }, verdict))))));
}

const titleOf = () => ({ recommended: "Recommended", duplicates: "Duplicates" }[address.viewOf(state)] ?? (query ? "Most similar" : info?.name ?? "Pictures"));

function noteOf(answer) {
  if (answer.groups) return `${plural(answer.total, "photo appears", "photos appear")} more than once among ${plural(info.items, "picture")}${answer.partial ? ", as far as was looked" : ""}. Nothing is deleted.`;
  if (address.viewOf(state) === "recommended") return "Similar to this one, but not the same photo, and different from each other.";
  if (!query) {
    const some = answer.results.length < answer.total ? `${answer.results.length.toLocaleString("en")} of ` : "";
    const of = Object.keys(address.whereOf(state, info)).length ? filterWords() : "";
    return `${some}${plural(answer.total, "picture")}${of}. Choose one to find more like it.`;
  }
  const parts = [`${answer.results.length.toLocaleString("en")} of ${countedOf()}`];
  if (answer.coverage) parts.push(answer.coverage);
  if (answer.below_threshold) parts.push(`${answer.below_threshold.toLocaleString("en")} not similar enough`);
  if (answer.hidden_duplicates) parts.push(`${plural(answer.hidden_duplicates, "near-duplicate")} hidden`);
  return parts.join(" · ");
}

// What is counted: all pictures, or those that the filters leave.
const filterWords = () => (state.labels.length === 1 && !Object.keys(state.metadata).length ? (state.labels[0] ? ` labelled ${state.labels[0]}` : " without a label") : " that match the filters");
function countedOf() {
  const where = address.whereOf(state, info);
  if (!Object.keys(where).length) return plural(info.items, "picture");
  if (Object.keys(state.metadata).length) return `the pictures${filterWords()}`;
  const left = info.labels.filter(({ label }) => state.labels.includes(label ?? "")).reduce((sum, { items: n }) => sum + n, 0);
  return `${plural(left, "picture")}${filterWords()}`;
}

function showMatch(answer) {
  const result = query && answer.results.find(({ id }) => id === state.match);
  if (result) {
    compare.show(info, query, answer, result);
    argue.show(info, query, result);
  } else {
    argue.hide();
    compare.hide();
    if (compared?.answer === answer) focusTile(compared.id);
  }
  compared = result ? { answer, id: result.id } : null;
}

// --- from the parts

function closeMatch() {
  if (history.state?.openedMatch) history.back();
  else go({ match: null }, { replace: true });
}

function retry() {
  service = names = info = null; // the server may be another by now
  return show();
}

const choose = () => $("#file").click();
const browseAll = () => go({ ...address.BLANK, collection: names?.includes(state.collection) ? state.collection : null });

async function shrinkQuery() {
  let smaller;
  try { smaller = await pictures.shrink(query.picture); } catch {
    const failed = new api.ApiError(0, "bad_image", "This browser cannot read it either, so it cannot make it smaller.");
    return showPanel(problems.problem(failed, query, service.limits, { choose, browse: browseAll }), true);
  }
  return go({ picture: await pictures.keep(smaller, query.name) }, { replace: true });
}

function changed() {
  info = drawn = null;
  answers.clear();
  items.clear();
  return show();
}

ask.setUp({
  take, collectionName: () => info?.name,
  say: ({ item = state.item, picture = state.picture, text = state.text, mix = state.mix }) => searchFor({ item, picture, text, mix }),
});
refine.setUp(refineBy);
compare.setUp({ close: closeMatch, step: (id) => go({ match: id }, { replace: true }), more: (item) => searchFor({ item: item.id }) });
argue.setUp({
  mark, region: (region) => go({ region, match: null }), asked: () => state, forget: () => go({ right: [], wrong: [], match: null }),
  use: ({ right, wrong }) => go({ right, wrong, match: null }),
});
working.setUp();
teach.setUp({ collection: () => info, taught: changed });
jobs.setUp(changed);
dialogs.setUp({
  service: () => service, collection: () => info, added: changed, begun: (job) => jobs.add(job),
  created: (name) => { names = null; return toCollection(name); },
});
$("#collection").addEventListener("change", (event) => toCollection(event.target.value));
$("#sign-out").addEventListener("submit", async (event) => {
  event.preventDefault();
  await pictures.forgetAll();
  event.target.submit();
});

addEventListener("popstate", () => { state = address.read(location.search); show(); });
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input:not([type=range], [type=checkbox]), textarea, select")) return;
  if (event.key === "/") { event.preventDefault(); ask.focusQuery(); }
  if (event.key === "?") { event.preventDefault(); dialogs.openHelp(); }
});

// --- begin where the address says, or where a sign-in cut in

const before = sessionStorage.getItem("after-login");
sessionStorage.removeItem("after-login");
if (before && !location.search) history.replaceState(null, "", `/${before}`);
state = address.read(location.search);
show();
