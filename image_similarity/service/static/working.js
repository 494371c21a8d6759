// Jobs that run, whatever is shown: a training of one collection is seen from every other, and from every page.
import { $, el } from "./dom.js";
import * as api from "./api.js";

const EVERY = 5000; // ms between two looks
const NAMES = { train: "Training", index: "Indexing", duplicates: "Copies in", map: "Map of", inspect: "Inspecting" };
let box = null;

async function look() {
  let jobs = [];
  try { if (!document.hidden) jobs = await api.allJobs(); else return; } catch { /* the next look tells */ }
  const active = jobs.filter(({ state }) => state === "running" || state === "queued");
  box.hidden = !active.length;
  box.replaceChildren(...active.slice(0, 3).map((job) => el("a", { href: `/?${new URLSearchParams({ collection: job.collection })}` },
    `${NAMES[job.kind] ?? job.kind} ${job.collection}`, job.state === "queued" ? ", waiting" : job.percent ? `, ${job.percent}%` : "…")));
}

export function setUp() {
  box = el("p", { class: "working", hidden: true });
  $(".top").append(box);
  look();
  setInterval(look, EVERY);
}
