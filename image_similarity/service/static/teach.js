// Quick answers: what to label next, one yes or no after the other; all that was said, taken back or learned from.
import { $, announce, baseName, el, plural } from "./dom.js";
import * as api from "./api.js";

const dialog = $("#teach");
const AT_ONCE = 6;
let page = null;
let waiting = [];    // suggestions
let one = null;      // the one that is asked about
let changed = false; // whether the collection has other labels now

// `collection()` that is shown; `taught()` when its labels have changed.
export function setUp(given) {
  page = given;
  $("#teach-open").addEventListener("click", open);
  $("[data-close]", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { if (changed) page.taught(); changed = false; });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "y" && !$("#teach-yes").hidden) answer(one.guess, true);
    if (event.key === "n" && !$("#teach-no").hidden) answer(one.guess, false);
  });
  $("#teach-yes").addEventListener("click", () => answer(one.guess, true));
  $("#teach-no").addEventListener("click", () => answer(one.guess, false));
  $("#teach-skip").addEventListener("click", next);
  $("#teach-form").addEventListener("submit", (event) => { event.preventDefault(); const label = $("#teach-label").value.trim(); if (label) answer(label, true); });
  $("#teach-learn").addEventListener("click", () => learn(() => api.refit(name(), "labels"), "Learned from the labels"));
  $("#teach-strokes").addEventListener("click", () => learn(() => api.refit(name(), "pairs"), "Learned from strokes and marks"));
  $("#teach-back").addEventListener("click", () => learn(() => api.goBack(name(), "labels"), "Labels as learned before"));
  $("#teach-strokes-back").addEventListener("click", () => learn(() => api.goBack(name(), "pairs"), "As learned before"));
}

const name = () => page.collection().name;
const wrong = (text) => { $("#teach-wrong").textContent = text; };

async function open() {
  if (!page.collection() || document.querySelector("dialog[open]")) return;
  waiting = [];
  wrong("");
  $("#teach-strokes").hidden = $("#teach-strokes-back").hidden = page.collection().kind !== "model";
  dialog.showModal();
  await Promise.all([next(), list()]);
}

async function next() {
  try { if (!waiting.length) waiting = (await api.suggestions(name(), AT_ONCE)).suggestions; } catch (error) { return wrong(error.message); }
  one = waiting.shift() ?? null;
  $("#teach-ask").hidden = !one;
  const question = !one ? "Every picture has a label." : one.guess === null ? "What is it?" : `Is this ${one.guess}?`;
  $("#teach-question").textContent = question;
  announce(question);
  if (!one) return undefined;
  const picture = ({ image, file }, role) => el("figure", {}, el("img", { src: image, alt: baseName(file) }), el("figcaption", {}, role));
  $("#teach-pair").replaceChildren(picture(one.item, baseName(one.item.file)), ...(one.like ? [picture(one.like, `${one.guess}, for one`)] : []));
  $("#teach-yes").hidden = $("#teach-no").hidden = one.guess === null;
  $("#teach-label").value = "";
  return undefined;
}

async function answer(label, right) {
  const { id } = one.item;
  wrong("");
  try { await api.answer(name(), { item: id, label, right }); } catch (error) { return wrong(error.message); }
  changed ||= right;
  if (waiting.length < AT_ONCE - 2) waiting = []; // what was answered changes what is asked
  return Promise.all([next(), list()]);
}

async function learn(send, said) {
  wrong("");
  try {
    const { version } = await send();
    announce(`${said}: version ${version}`);
    changed = true;
  } catch (error) { wrong(error.message); }
  return list();
}

const inWords = ({ kind, item, label, right, query, of }) => ({
  answer: () => `${item} is ${right ? "" : "not "}${label}`,
  mark: () => `${item} is ${right ? "right" : "wrong"} for ${typeof query === "number" ? query : "a picture"}`,
  stroke: () => `a part of the ${of} does not count for ${query} and ${item}`,
}[kind]());

async function list() {
  let answer;
  try { answer = await api.feedback(name()); } catch (error) { return wrong(error.message); }
  const { said, versions } = answer;
  $("#teach-said").replaceChildren(...said.slice(-50).reverse().map((it) => el("li", {}, el("span", {}, inWords(it)),
    el("button", { type: "button", class: "quiet", "aria-label": `Undo: ${inWords(it)}`, onclick: () => undo(it.id) }, "Undo"))));
  $("#teach-versions").textContent = versions.length ? versions.map(({ version, kind, used }) => `version ${version} of ${kind}${used ? ", at work" : ""}`).join("; ") : "Nothing is learned yet.";
  await says(versions);
  $("#teach-export").href = api.feedbackAddress(name());
  return undefined;
}

// What the version at work says of the pictures that have no label.
async function says(versions) {
  const at = versions.some(({ kind, used }) => kind === "labels" && used);
  let text = "";
  try {
    if (at) {
      const { total, labels } = await api.predictions(name());
      text = total ? `It says of ${plural(total, "picture")} without a label: ${labels.map(({ label, items }) => `${items} ${label}`).join(", ")}.` : "Every picture has a label.";
    }
  } catch (error) { text = error.message; }
  $("#teach-says").textContent = text;
}

async function undo(id) {
  try { await api.undo(name(), [id]); } catch (error) { return wrong(error.message); }
  changed = true;
  waiting = [];
  return Promise.all([next(), list()]);
}
