// Trainings of the shown collection: how far they are, what they left out, and how they ended.
import { $, announce, el, percent, plural } from "./dom.js";
import * as api from "./api.js";

const EVERY = 1000; // ms between two looks
const cards = new Map(); // id to { job, card }
let watched = null;      // name of the collection
let timer = null;
let onDone = () => {};

const ended = (job) => !["queued", "running"].includes(job.state);

export function setUp(done) { onDone = done; }

// Show the jobs of a collection that wait or run, from now on.
export function watch(collection) {
  if (watched !== collection.name) {
    watched = collection.name;
    cards.clear();
    $("#jobs").replaceChildren();
  }
  const news = collection.jobs.filter((id) => !cards.has(id));
  if (news.length) look(news);
}

// Show a job that was just begun.
export function add(job) {
  if (job.collection === watched) { paint(job); later(); }
}

async function look(ids) {
  clearTimeout(timer);
  const name = watched;
  for (const id of ids) {
    try {
      const job = await api.job(id);
      if (name !== watched) return;
      paint(job);
    } catch (error) {
      if (error.code === "not_found") { cards.get(id)?.card.remove(); cards.delete(id); }
      else if (error.code !== "unreachable" && error.code !== "busy") throw error; // otherwise the next look tells
    }
  }
  later();
}

const running = () => [...cards.values()].filter(({ job }) => !ended(job)).map(({ job }) => job.id);

function later() {
  clearTimeout(timer);
  timer = setTimeout(() => { if (running().length) look(running()); }, EVERY);
}

function outcome(job) {
  if (job.state === "failed") return job.message ?? "It failed.";
  if (job.state === "cancelled") return "Cancelled. Pictures already added stay.";
  const { added, known, accuracy, auc, copies } = job.result;
  if (job.kind === "duplicates") return `${plural(copies, "photo")} there more than once.`;
  if (job.kind === "map") return `A map of ${plural(known, "picture")}: see Browse.`;
  if (job.kind === "inspect") return `${plural(copies, "finding")}: see Browse, Problems.`;
  const parts = [`${plural(added, "picture")} added`];
  if (known) parts.push(`${known.toLocaleString("en")} already there`);
  if (typeof accuracy === "number") parts.push(`right class for ${percent(accuracy, 0)} of the held-out pictures`);
  if (typeof auc === "number") parts.push(`AUC ${auc.toFixed(3)} for telling matching pairs from others`);
  return `${parts.join(", ")}.${job.message ? ` ${job.message[0].toUpperCase()}${job.message.slice(1)}.` : ""}`;
}

const TITLES = { queued: "Training is waiting", running: "Training", done: "Training finished", failed: "Training failed", cancelled: "Training cancelled" };

const NAMES = { index: "Indexing", duplicates: "Looking for copies", map: "Drawing the map", inspect: "Inspecting" };

function paint(job) {
  const before = cards.get(job.id);
  const card = before?.card ?? makeCard(job.id);
  cards.set(job.id, { job, card });
  card.dataset.state = job.state;
  $("h2", card).textContent = TITLES[job.state].replace("Training", NAMES[job.kind] ?? "Training");
  $(".stage-name", card).textContent = ended(job) ? outcome(job) : job.state === "queued" ? "waiting for others to end" : job.percent < 1 ? `${job.stage}: getting ready…` : `${job.stage}, ${Math.round(job.percent)}%`;
  $("progress", card).hidden = ended(job);
  if (job.percent < 1) $("progress", card).removeAttribute("value"); else $("progress", card).value = job.percent;
  $(".job-cancel", card).hidden = ended(job);
  $(".job-dismiss", card).hidden = !ended(job);
  paintSkipped($("details", card), job.skipped);
  if (before?.job.stage !== job.stage && !ended(job)) announce(`${NAMES[job.kind] ?? TITLES.running}: ${job.stage}`);
  if (job.kind === "duplicates" && before && before.job.stage !== job.stage && !ended(job)) onDone(job); // there may be more to see
  if (ended(job) && !(before && ended(before.job))) {
    announce(`${TITLES[job.state].replace("Training", NAMES[job.kind] ?? "Training")}. ${outcome(job)}`);
    if (before) onDone(job);
  }
}

export function paintSkipped(details, skipped) {
  details.hidden = !skipped.length;
  $("summary", details).textContent = `${plural(skipped.length, "file")} skipped`;
  $("ul", details).replaceChildren(...skipped.map(({ file, reason }) => el("li", {}, el("span", { class: "file" }, file), ` ${reason}`)));
}

export const skippedList = () => el("details", { class: "skipped", hidden: true }, el("summary"), el("ul", { tabindex: "0" }));

function makeCard(id) {
  const name = `job-${id}`;
  const card = el("section", { class: "job", "aria-labelledby": name },
    el("div", {}, el("h2", { id: name }), el("p", { class: "stage-name" })),
    el("button", { type: "button", class: "job-cancel", onclick: () => cancel(id) }, "Cancel"),
    el("button", { type: "button", class: "job-dismiss quiet", onclick: () => card.remove() }, "Dismiss"),
    el("progress", { max: 100, "aria-labelledby": name }), skippedList());
  $("#jobs").append(card);
  return card;
}

async function cancel(id) {
  try { paint(await api.cancelJob(id)); } catch (error) {
    if (error.code === "conflict") return look([id]); // it had ended already
    announce(error.message);
    $(".stage-name", cards.get(id).card).textContent = error.message;
  }
}
