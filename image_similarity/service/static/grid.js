// The pictures that are shown: tiles of a search or of the whole collection, and the keys that move among them.
import { $, baseName, el, icon, percent } from "./dom.js";

// The probability of a match in this collection; where there is none, that of the pair, said to be that.
const sure = (result, comparedBy) => {
  if (comparedBy !== "probability") return result.score.toFixed(comparedBy === "cosine" ? 3 : 2);
  return result.probability === null ? `pair ${percent(result.pair_probability)}` : percent(result.probability);
};
// One word says which kind of score it is.
const kinds = {
  probability: (result) => (result.probability === null ? ["pair", percent(result.pair_probability), ""] : ["match", percent(result.probability), ""]),
  cosine: (result) => ["cosine", result.score.toFixed(2), ""],
  mixture: (result) => ["", result.score.toFixed(1), "σ above average"],
  marks: (result) => ["log odds", result.score.toFixed(2), ""],
};
function scoreOf(result, comparedBy) {
  const [before, figure, after] = kinds[comparedBy](result);
  return [before && el("span", { class: "kind" }, before), before && " ", figure, after && " ", after && el("span", { class: "kind" }, after)];
}
export const inWords = (result, comparedBy) => ({
  probability: result.probability === null ? `as a pair ${percent(result.pair_probability)} likely to match; in this collection it cannot be said: ${result.reason}`
    : `${sure(result, comparedBy)} likely to match`,
  cosine: `cosine similarity ${sure(result, comparedBy)}`,
  marks: `log odds ${sure(result, comparedBy)} by the marks`,
  mixture: `${sure(result, comparedBy)} standard deviations above average`,
}[comparedBy]);
export const altOf = (item) => (item.label === null ? baseName(item.file) : `${item.label}: ${baseName(item.file)}`);

function scale(share) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.inlineSize = `${100 * Math.min(1, Math.max(0, share))}%`;
  return bar;
}

// The part that matched, over a picture that fills its square.
function framed(picture, [left, upper, right, lower]) {
  const least = Math.min(picture.naturalWidth, picture.naturalHeight), [width, height] = [picture.naturalWidth / least, picture.naturalHeight / least];
  const across = (share) => Math.min(1, Math.max(0, (1 - width) / 2 + share * width)), down = (share) => Math.min(1, Math.max(0, (1 - height) / 2 + share * height));
  const box = el("span", { class: "box", "aria-hidden": "true" });
  Object.assign(box.style, { left: `${100 * across(left)}%`, top: `${100 * down(upper)}%`, width: `${100 * (across(right) - across(left))}%`, height: `${100 * (down(lower) - down(upper))}%` });
  return box;
}

function tile(item, { comparedBy, labelled, note, open, more }) {
  const picture = el("img", { src: item.thumbnail, alt: altOf(item), loading: "lazy", decoding: "async", width: 320, height: 320 });
  picture.addEventListener("error", () => { picture.classList.add("broken"); gone(picture.closest("ul")); }, { once: true });
  const main = el("button", { type: "button", class: "open", onclick: () => open(item) }, picture);
  if (item.box) picture.addEventListener("load", () => main.append(framed(picture, item.box)), { once: true });
  const caption = el("div", { class: "caption" });
  if (comparedBy) {
    const share = { probability: item.probability ?? undefined, cosine: item.score }[comparedBy]; // the sum of a mixture has no upper end
    main.append(el("span", { class: "unseen" }, ", compare with the query"));
    caption.append(el("p", { class: "sure", title: inWords(item, comparedBy) }, ...scoreOf(item, comparedBy)));
    if (share !== undefined) caption.append(scale(share));
  } else {
    main.append(el("span", { class: "unseen" }, ", find more like this"));
  }
  if (note) caption.append(el("p", { class: "note" }, note(item)));
  if (labelled) caption.append(el("p", { class: item.label === null ? "label none" : "label" }, item.label ?? "no label"));
  caption.append(el("p", { class: "file", title: item.file }, baseName(item.file)));
  if (comparedBy) caption.append(el("button", { type: "button", class: "more", onclick: () => more(item) },
    icon("alike"), el("span", {}, "More like this", el("span", { class: "unseen" }, `: ${baseName(item.file)}`))));
  return el("li", { "data-id": item.id }, main, caption);
}

// Show `items`. With `comparedBy` they are results of a search; without, the collection as it is. `labelled`: whether there
// are labels to show; `note(item)`, if it is given, what else to say of each.
export function grid(items, actions) {
  const list = el("ul", { class: "grid", role: "list" }, ...items.map((item) => tile(item, actions)));
  list.addEventListener("keydown", (event) => move(list, event));
  list.addEventListener("focusin", (event) => makeCurrent(list, event.target.closest("li")));
  makeCurrent(list, list.firstChild);
  return list;
}

// Files that were moved: how many of those on the screen, and what to run.
function gone(list) {
  if (!list) return;
  const n = list.querySelectorAll("img.broken").length, name = new URLSearchParams(location.search).get("collection") ?? "GALLERY";
  let banner = list.previousElementSibling;
  if (!banner?.classList.contains("gone")) list.before(banner = el("div", { class: "gone", role: "status" }));
  banner.replaceChildren(`${n === 1 ? "One picture" : `${n} pictures`} cannot be shown: the ${n === 1 ? "file was" : "files were"} moved or deleted. Say where they lie now: `, el("code", {}, `image_similarity index FOLDER --gallery ${name}`));
}

export function skeleton(n) {
  return el("ul", { class: "grid waiting", "aria-hidden": "true" }, ...Array.from({ length: n }, () =>
    el("li", {}, el("span", { class: "open" }), el("div", { class: "caption" }, el("p"), el("p")))));
}

// One tile is reached by Tab, the others by the arrows.
function makeCurrent(list, current) {
  for (const li of list.children) for (const button of li.querySelectorAll("button")) button.tabIndex = li === current ? 0 : -1;
}

export function focusTile(id) {
  const button = $(`.grid li[data-id="${id}"] .open`);
  button?.focus();
  return Boolean(button);
}

function move(list, event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const tiles = [...list.children];
  const now = tiles.indexOf(event.target.closest("li"));
  const columns = tiles.filter((li) => li.offsetTop === tiles[0].offsetTop).length;
  const to = { ArrowLeft: now - 1, ArrowRight: now + 1, ArrowUp: now - columns, ArrowDown: now + columns, Home: 0, End: tiles.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  if (to < 0 || to >= tiles.length) return;
  $(".open", tiles[to]).focus();
}
