// The dialogs that make a collection and add pictures to one, by hand or as a zip to train on; and the help.
import { $, bytes, el, plural } from "./dom.js";
import * as api from "./api.js";
import * as jobs from "./jobs.js";

// What the dialogs need of the page: service() and collection() give what the server said of itself and of the shown
// collection, created(name) and added() are called after a change, begun(job) after a training began.
let page = null;
let chosen = [];     // files that are to be added
let sending = null;  // an AbortController while they are sent

export function setUp(given) {
  page = given;
  $("#help-open").addEventListener("click", openHelp);
  $("#create-open").addEventListener("click", openCreate);
  $("#add-open").addEventListener("click", () => openAdd());
  for (const dialog of [$("#help"), $("#create"), $("#add")]) {
    $("[data-close]", dialog).addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog && !sending) dialog.close(); });
  }
  $("#create-form").addEventListener("submit", create);
  $("#create-encoder").addEventListener("change", explainEncoder);
  $("#create-name").addEventListener("invalid", (event) => { event.preventDefault(); const given = $("#create-name").value; $("#create-wrong").textContent = given ? `“${given}” cannot be a name: letters, digits, - and _ only, and a letter or digit first.` : "Give it a name."; $("#create-name").focus(); });
  $("#create-name").addEventListener("input", () => { $("#create-wrong").textContent = ""; });
  $("#add-form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  $("#add-choose").addEventListener("click", () => $("#add-files").click());
  $("#add-files").addEventListener("change", () => { choose([...$("#add-files").files]); $("#add-files").value = ""; });
  $("#add-cancel").addEventListener("click", () => sending?.abort());
  $("#add").addEventListener("cancel", (event) => { if (sending) event.preventDefault(); }); // not by one touch of Esc
  $("#add").addEventListener("close", () => sending?.abort());
  $("#add").addEventListener("drop", (event) => { if (!sending) choose([...event.dataTransfer.files]); });
}

const ENCODERS = { // what there is to know before one chooses
  "tf_efficientnet_lite0": "Small and quick, explains its answers, and understands words. Right for most collections.",
  "tf_efficientnet_lite2": "Looks at larger pictures: finds small things better, and takes about three times as long.",
};
const explainEncoder = () => { $("#encoder-rule").textContent = `${ENCODERS[$("#create-encoder").value.replace(/[.@].*$/, "")] ?? "What looks at the pictures."} It cannot be changed later.`; };

export function openHelp() { if (!document.querySelector("dialog[open]")) $("#help").showModal(); }

export function openCreate() {
  $("#create-form").reset();
  $("#create-wrong").textContent = "";
  $("#create-encoder").replaceChildren(...page.service().encoders.map((name) => el("option", {}, name)));
  explainEncoder();
  $("#create").showModal();
}

async function create(event) {
  event.preventDefault();
  const name = $("#create-name").value;
  try {
    await api.create(name, $("#create-encoder").value);
    $("#create").close();
    page.created(name);
  } catch (error) { $("#create-wrong").textContent = error.message; }
}

export function openAdd(files = []) {
  const collection = page.collection();
  if (!collection) return openCreate();
  $("#add-form").reset();
  $("#add-title").textContent = `Add to ${collection.name}`;
  $("#known-labels").replaceChildren(...collection.labels.filter(({ label }) => label !== null).map(({ label }) => el("option", { value: label })));
  $("#add-outcome").replaceChildren();
  choose(files);
  if (!$("#add").open) $("#add").showModal();
}

export const isZip = (file) => /\.zip$/i.test(file.name) || file.type.includes("zip");

function choose(files) {
  chosen = files;
  const zip = files.length === 1 && isZip(files[0]);
  const total = files.reduce((sum, file) => sum + file.size, 0);
  $("#add-wrong").textContent = wrongWith(files);
  $("#add-chosen").textContent = !files.length ? "Drop pictures here, or one zip to train on."
    : files.length === 1 ? `${files[0].name}, ${bytes(total)}` : `${plural(files.length, "picture")}, ${bytes(total)}`;
  $("#add-choose").textContent = files.length ? "Choose others" : "Choose files";
  $("#add-pictures").hidden = !files.length || zip;
  $("#add-zip").hidden = !zip;
  $("#add-go").textContent = zip ? "Upload and train" : "Add";
  $("#add-go").disabled = !files.length || Boolean($("#add-wrong").textContent);
}

function wrongWith(files) {
  const { limits } = page.service();
  if (files.length > 1 && files.some(isZip)) return "A zip has to be sent on its own: choose either pictures or one zip.";
  const limit = files.length === 1 && isZip(files[0]) ? limits.archive_bytes : limits.upload_bytes;
  const large = files.find((file) => file.size > limit);
  return large ? `${large.name} is ${bytes(large.size)}; the limit is ${bytes(limit)}.` : "";
}

// Parts of at most so many files and bytes as the service takes at once.
function inParts(files, { upload_files, upload_bytes }) {
  const parts = [];
  let size = Infinity;
  for (const file of files) {
    if (size + file.size > 0.95 * upload_bytes || parts.at(-1).length === upload_files) { parts.push([]); size = 0; }
    parts.at(-1).push(file);
    size += file.size;
  }
  return parts;
}

function busy(text, share) {
  $("#add-stage").textContent = text;
  const bar = $("progress", $("#add-progress"));
  if (share === null) bar.removeAttribute("value"); else bar.value = 100 * share;
}

async function send() {
  sending = new AbortController();
  const { name } = page.collection();
  const { signal } = sending;
  for (const id of ["#add-go", "#add-choose"]) $(id).disabled = true;
  $("#add-progress").hidden = $("#add-cancel").hidden = false;
  $("#add-wrong").textContent = "";
  try {
    if (isZip(chosen[0])) await sendZip(name, signal); else await sendPictures(name, signal);
  } catch (error) {
    $("#add-go").disabled = false; // the files are still chosen
    $("#add-wrong").textContent = error.name === "AbortError" ? "Cancelled." : error.code === "unreachable" ? "The server is not responding. The files are still selected: try again." : error.message;
  } finally {
    sending = null;
    $("#add-progress").hidden = $("#add-cancel").hidden = true;
    $("#add-choose").disabled = false;
  }
}

async function sendZip(name, signal) {
  busy("Uploading", 0);
  const job = await api.train(name, chosen[0], $("#add-labels").value, (share) =>
    share < 1 ? busy(`Uploading, ${Math.floor(100 * share)}%`, share) : busy("Checking the zip", null), signal);
  $("#add").close();
  page.begun(job);
}

async function sendPictures(name, signal) {
  const label = $("#add-label").value.trim();
  const total = chosen.reduce((sum, file) => sum + file.size, 0) || 1;
  const answers = [];
  let sent = 0;
  try {
    for (const part of inParts(chosen, page.service().limits)) {
      const size = part.reduce((sum, file) => sum + file.size, 0);
      answers.push(await api.addPictures(name, part, label, (share) => {
        const all = (sent + share * size) / total;
        busy(share < 1 ? `Uploading, ${Math.floor(100 * all)}%` : "Reading the pictures", share < 1 ? all : null);
      }, signal));
      sent += size;
      chosen = chosen.slice(part.length);
    }
  } finally {
    choose(chosen);
    if (answers.length) { showOutcome(answers); page.added(); }
  }
}

function showOutcome(answers) {
  const items = answers.flatMap((answer) => answer.items);
  const skipped = answers.flatMap((answer) => answer.skipped);
  const known = items.filter(({ status }) => status === "known").length;
  const details = jobs.skippedList();
  jobs.paintSkipped(details, skipped);
  details.open = true;
  $("#add-outcome").replaceChildren(
    el("p", {}, `${plural(items.length - known, "picture")} added${known ? `, ${known.toLocaleString("en")} already there` : ""}.`), details);
}
