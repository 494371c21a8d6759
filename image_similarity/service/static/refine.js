// Threshold, near-duplicates, and the filters that a collection's labels and metadata offer.
import { $, el, percent } from "./dom.js";
import { hasQuery, refinements, viewOf } from "./address.js";

const LABELS_TO_SEARCH = 10; // more than these get a field to narrow them down
let builtFor = null;

export function setUp(say) {
  const threshold = $("#threshold");
  threshold.addEventListener("input", paintThreshold);
  threshold.addEventListener("change", () => say({ threshold: Number(threshold.value) }));
  $("#coverage").addEventListener("change", (event) => say({ coverage: Number(event.target.value) }));
  $("#hide-duplicates").addEventListener("change", (event) => say({ hideDuplicates: event.target.checked }));
  $("#clear-filters").addEventListener("click", () => { say(NOTHING); $("#refine summary").focus(); });
  $("#filters").addEventListener("change", () => say({ labels: chosenLabels(), metadata: chosenMetadata() }));
  $("#refine").open = matchMedia("(min-width: 60rem)").matches;
}

export const NOTHING = { threshold: 0, coverage: 0, hideDuplicates: false, labels: [], metadata: {} };

const boxes = () => [...document.querySelectorAll("#filters input[type=checkbox]")];
const selects = () => [...document.querySelectorAll("#filters select")];
const chosenLabels = () => boxes().filter((box) => box.checked).map((box) => box.value);
const chosenMetadata = () => Object.fromEntries(selects().filter((s) => s.value !== "").map((s) => [s.dataset.name, s.value.slice(1)]));

function paintThreshold() {
  const row = $("#threshold-row");
  const value = Number($("#threshold").value);
  $("output", row).textContent = value === 0 ? "any" : row.dataset.by === "probability" ? percent(value, 0) : value.toFixed(2);
}

const THRESHOLDS = {
  probability: { label: "Minimum probability of a match", most: 0.99, step: 0.01 },
  cosine: { label: "Minimum similarity", most: 0.99, step: 0.01 },
  mixture: { label: "Minimum score (standard deviations above average)", most: 5, step: 0.1 },
};

// `comparedBy` is what the threshold is about: "probability", "cosine" or "mixture".
export function paint(state, collection, comparedBy) {
  if (builtFor !== collection) build(collection);
  const asked = hasQuery(state);
  const row = $("#threshold-row");
  row.hidden = !asked;
  row.dataset.by = comparedBy;
  const { label, most, step } = THRESHOLDS[comparedBy];
  $("label", row).textContent = label;
  Object.assign($("#threshold"), { max: most, step, value: state.threshold });
  paintThreshold();
  $("#coverage-row").hidden = !asked || comparedBy !== "probability"; // only a model has learned what to promise
  if (![...$("#coverage").options].some(({ value }) => Number(value) === state.coverage)) $("#coverage").append(el("option", { value: state.coverage }, `in ${percent(state.coverage, 0)} of searches`));
  $("#coverage").value = String(state.coverage);
  $("#hide-duplicates").checked = state.hideDuplicates;
  $("#hide-duplicates").closest("label").hidden = !asked;
  for (const box of boxes()) box.checked = state.labels.includes(box.value);
  for (const select of selects()) select.value = select.dataset.name in state.metadata ? `=${state.metadata[select.dataset.name]}` : "";
  const n = refinements(state);
  $("#refine-count").textContent = n ? `${n} active` : "";
  $("#clear-filters").hidden = !n;
  const recommended = viewOf(state) === "recommended"; // to which only the threshold applies
  $("#filters").hidden = recommended;
  if (recommended) $("#hide-duplicates").closest("label").hidden = true;
  $("#refine").hidden = !asked && !$("#filters").children.length;
}

function build(collection) {
  builtFor = collection;
  const filters = $("#filters");
  filters.replaceChildren();
  if (collection.labels.length > 1) filters.append(labelFilter(collection.labels));
  Object.entries(collection.metadata).forEach(([name, values], k) => {
    if (values.length < 2) return;
    const select = el("select", { id: `meta-${k}`, "data-name": name }, el("option", { value: "" }, "any"),
      ...values.map((value) => el("option", { value: `=${value}` }, String(value))));
    filters.append(el("div", { class: "field" }, el("label", { for: `meta-${k}` }, name), select));
  });
}

function labelFilter(labels) {
  const choices = labels.map(({ label, items }) => el("label", { class: "check" },
    el("input", { type: "checkbox", value: label ?? "" }),
    el("span", { class: label === null ? "none" : null }, label ?? "no label"), el("span", { class: "count" }, items.toLocaleString("en"))));
  const box = el("fieldset", {}, el("legend", {}, "Label"));
  if (labels.length > LABELS_TO_SEARCH) {
    const narrow = el("input", { type: "search", placeholder: "Filter labels", "aria-label": "Filter the list of labels", autocomplete: "off" });
    narrow.addEventListener("input", () => {
      const wanted = narrow.value.trim().toLowerCase();
      for (const choice of choices) choice.hidden = !choice.textContent.toLowerCase().includes(wanted);
    });
    narrow.addEventListener("change", (event) => event.stopPropagation());
    box.append(narrow);
  }
  if (choices.length > LABELS_TO_SEARCH) box.append(el("p", { class: "rule" }, `${choices.length.toLocaleString("en")} labels, scroll for more`));
  box.append(el("div", { class: "choices", tabindex: "0", role: "group", "aria-label": "Labels" }, ...choices));
  return box;
}
