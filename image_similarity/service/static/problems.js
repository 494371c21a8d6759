// What the page says in the place of pictures: nothing there, nothing similar enough, or something went wrong.
import { announce, bytes, el, percent, plural } from "./dom.js";
import { refinements } from "./address.js";

function panel(title, kind, ...content) {
  announce(title);
  return el("div", { class: `panel ${kind}` }, el("h3", {}, title), ...content);
}
const text = (...words) => el("p", {}, ...words);
const button = (label, onclick, main = false) => el("button", { type: "button", class: main ? "main" : null, onclick }, label);
const buttons = (...made) => el("div", { class: "panel-actions" }, ...made);

function command(...lines) {
  const code = lines.join("\n");
  const copy = el("button", { type: "button", class: "quiet", onclick: async () => {
    await navigator.clipboard.writeText(code);
    copy.textContent = "Copied";
  } }, "Copy");
  return el("div", { class: "command" }, el("pre", { tabindex: "0" }, el("code", {}, code)), navigator.clipboard && copy);
}

export function noCollections({ create }) {
  return panel("No collections yet", "empty", text("A collection holds pictures and the encoder or model that compares them."),
    buttons(button("New collection", create, true)));
}

export function emptyCollection(collection, service, { add }) {
  const bearer = service.token ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const url = `${location.origin}/v1/collections/${collection.name}`;
  return panel(`${collection.name} is empty`, "empty",
    buttons(button("Add pictures", add, true)),
    text("Or from a terminal:"),
    command(`curl${bearer} -F files=@cat.jpg -F files=@dog.jpg \\`, `  ${url}/items`),
    text("To train a model that says how likely two pictures match, send a zip with a folder for each class:"),
    command(`curl${bearer} -H "Content-Type: application/zip" \\`, `  --data-binary @pets.zip ${url}/train`));
}

// A search that found nothing, or a collection of which the filters leave nothing.
export function nothing(answer, state, collection, { say, clear, again }) {
  const look = answer.partial || answer.stale ? [buttons(button("Look for copies again", again))] : []; // the job that runs, where one does
  if (answer.groups && answer.partial) return panel("Looking for copies", "nothing", text("This goes on in the background, and what is found is shown here. You can close the page meanwhile."), ...look);
  if (answer.groups) return panel("No duplicates", "nothing", text(`No two pictures in ${collection.name}${refinements(state) ? " that match these filters" : ""} show the same photo.`), ...look);
  if (answer.below_threshold) {
    const least = answer.compared_by === "probability" ? `is at least ${percent(state.threshold, 0)} likely to match` : `has a score of ${state.threshold} or more`;
    return panel("Nothing is similar enough", "nothing",
      text(`No picture in ${collection.name} ${least}. ${plural(answer.below_threshold, "picture is", "pictures are")} less similar than that.`),
      buttons(button("Show them anyway", () => say({ threshold: 0 }), true)));
  }
  if (answer.hidden_duplicates) {
    return panel("Only near-duplicates", "nothing", text(`${plural(answer.hidden_duplicates, "near-duplicate is", "near-duplicates are")} hidden, and there is nothing else.`),
      buttons(button("Show near-duplicates", () => say({ hideDuplicates: false }), true)));
  }
  if (answer.coverage) {
    return panel("Nothing that could be a match", "nothing", text(`The query is unlike anything that the model was trained on, so the set is empty.`),
      buttons(button("Show the most similar anyway", () => say({ coverage: 0 }), true)));
  }
  if (refinements(state)) {
    return panel("No picture matches these filters", "nothing", text(`${collection.name} has ${plural(collection.items, "picture")}, none of them with these labels and metadata.`),
      buttons(button("Clear all filters", clear, true)));
  }
  return panel("There is nothing to compare with", "nothing", text(`${collection.name} has no other picture.`));
}

// `actions`: retry, choose, browse, shrink, to(collection).
export function problem(error, query, limits, actions) {
  const retry = button("Try again", actions.retry, true);
  const choose = (main = true) => button("Choose another picture", actions.choose, main);
  const browse = button("Show the collection", actions.browse);
  switch (error.code) {
    case "unreachable": return panel("The server is not responding", "problem",
      text("It may be starting up, or the connection may be lost. Your search is kept: you need not enter it again."), buttons(retry));
    case "busy": return panel("The server is busy", "problem", text("Your search is kept. Try again in a moment."), buttons(retry));
    case "bad_image": return panel("This picture cannot be read", "problem", text(error.message), buttons(choose(), browse));
    case "too_large": return panel("This picture is too large", "problem",
      text(error.message, query?.picture && limits ? ` It has ${bytes(query.picture.size)}; the limit is ${bytes(limits.query_bytes)} and ${limits.pixels / 1e6} megapixels.` : ""),
      query?.picture ? buttons(button("Make it smaller and search", actions.shrink, true), choose(false)) : buttons(choose()));
    case "forgotten": return panel("This picture is no longer in this browser", "problem",
      text("The address refers to a picture that was dropped here earlier, or in another browser. Drop it again to search with it."), buttons(choose(), browse));
    case "not_found": return panel(/ collection$/.test(error.message) ? "Collection not found" : "Picture not found", "problem", text(error.message), buttons(browse));
    default: return panel("Something went wrong", "problem", text(error.message), buttons(retry, browse));
  }
}
