// The query: dropped, pasted, chosen or typed; and its preview.
import { $, baseName, percent } from "./dom.js";

let shownUrl = null; // of the picture in the frame, if it is one of this browser

// `take(files)` is called with what was dropped, pasted or chosen, `say(changes)` with changes of the state.
export function setUp({ take, say, collectionName }) {
  const file = $("#file");
  for (const button of [$("#choose"), $("#choose-other")]) button.addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length) take([...file.files]);
    file.value = ""; // so that the same file can be chosen again
  });
  $("#clear-picture").addEventListener("click", () => { say({ item: null, picture: null }); $("#choose").focus(); });
  $("#words").addEventListener("submit", (event) => { event.preventDefault(); submitted(say); });
  $("#text").addEventListener("input", () => { $("#text-wrong").textContent = ""; });
  $("#text").addEventListener("search", () => { if (!$("#text").value) say({ text: "" }); }); // the small cross in the field
  $("#mix").addEventListener("change", () => say({ mix: Number($("#mix").value) }));
  $("#mix").addEventListener("input", paintMix);
  listenForDrops(take, collectionName);
  document.addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData.files];
    if (!pasted.length || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    take(pasted);
  });
}

function submitted(say) {
  const text = $("#text").value.trim(), empty = !text && $("#frame").dataset.shows === "nothing";
  $("#text-wrong").textContent = empty ? "Say in a few words what the picture shows, or choose a picture." : "";
  if (empty) $("#text").focus();
  else say({ text });
}

function listenForDrops(take, collectionName) {
  const veil = $("#veil");
  const withFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!withFiles(event)) return;
    event.preventDefault(); // otherwise the browser opens the file
    if (document.querySelector("dialog[open]")) return;
    $("p", veil).textContent = `Drop a picture to search ${collectionName() ?? ""}`;
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) veil.hidden = true; });
  document.addEventListener("drop", (event) => {
    if (!withFiles(event)) return;
    event.preventDefault();
    veil.hidden = true;
    if (document.querySelector("dialog[open]")) return; // the dialog takes its own
    take([...event.dataTransfer.files]);
  });
}

// What is asked: { picture, name, url } of this browser, or { item, name, url, label } of the collection, and the text.
// `query` is null while nothing is asked.
export function paint(query, state, collection) {
  const shown = query && (query.picture || query.item);
  $("#frame").dataset.shows = shown ? "query" : "nothing";
  $(".frame-nothing").hidden = Boolean(shown);
  $(".frame-query").hidden = !shown;
  if (shown) {
    const image = $("#query-image");
    const failed = (yes) => { image.hidden = yes; $(".no-preview").hidden = !yes; };
    if (image.getAttribute("src") !== query.url) {
      failed(false);
      image.onerror = () => failed(true);
      image.src = query.url;
    }
    image.alt = `The query: ${baseName(query.name)}`;
    $(".query-file").textContent = baseName(query.name);
    $(".query-file").title = query.name;
    $(".query-class").textContent = query.label ?? "";
  }
  $("#words").hidden = !collection?.text;
  if (document.activeElement !== $("#text")) $("#text").value = state.text;
  $("#words label").textContent = shown ? "Add words" : "Or say what it shows";
  $("#mix-row").hidden = !(shown && state.text);
  $("#mix").value = state.mix;
  paintMix();
}

function paintMix() { $("#mix-row output").textContent = percent($("#mix").value, 0); }

// What the classifier sees in the query.
export function paintPredicted(predicted) {
  if (predicted) $(".query-class").textContent = predicted.label === null ? `of no class that was learned, ${percent(predicted.probability, 0)}`
    : `classified as ${predicted.label}, ${percent(predicted.probability, 0)}`;
}

export function urlOf(blob) {
  if (shownUrl?.blob !== blob) {
    if (shownUrl) URL.revokeObjectURL(shownUrl.url);
    shownUrl = { blob, url: URL.createObjectURL(blob) };
  }
  return shownUrl.url;
}

export function focusQuery() {
  const text = $("#text");
  if (!$("#words").hidden) { text.focus(); text.select(); }
  else ($(".frame-nothing").hidden ? $("#choose-other") : $("#choose")).focus();
}

