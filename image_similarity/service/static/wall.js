// The grid of a whole collection: ten thousand pictures and more, of which only those on the screen exist. Tiles are used
// again for other pictures, so scrolling makes nothing and removes nothing.
import { el } from "./dom.js";

const MORE = 2;            // rows above and below the screen
const AT_ONCE = 3;         // tiles of those rows that one frame fills, or it would come late
const PAUSE = 60;          // ms without scrolling faster than a screen a frame, before thumbnails are asked for
const SIZES = [160, 320, 640];

// `show(items)` sets what there is: [{ id, file, label, excluded }]. `on`: chosen(ids) after a change, open(item), current(item).
export function makeWall({ thumbnail, on }) {
  const sheet = el("div"), list = el("div", { class: "wall", role: "listbox", tabindex: "0", "aria-multiselectable": "true", "aria-label": "Pictures" }, sheet);
  let items = [], places = new Map(), chosen = new Set(), current = 0, anchor = 0, side = 168, columns = 1, row = 0, pool = [], waiting = null, last = 0, scheduled = false;

  function measure() {
    const width = list.clientWidth || 1;
    columns = Math.max(1, Math.floor(width / side));
    row = Math.floor(width / columns);
    sheet.style.blockSize = `${Math.ceil(items.length / columns) * (row + 22)}px`;
    sheet.setAttribute("role", "presentation");
  }

  function newTile() {
    const tile = el("div", { role: "option" }, el("img", { alt: "", decoding: "async", draggable: "false" }), el("span"));
    tile.firstChild.addEventListener("error", () => { tile.firstChild.alt = "cannot be shown"; on.broken?.(items[tile.at]); });
    tile.at = -1;
    return tile;
  }

  function fill(tile, at) {
    const item = items[at], [image, text] = tile.children;
    tile.at = at;
    tile.id = `tile-${item.id}`;
    tile.setAttribute("aria-posinset", at + 1);
    tile.setAttribute("aria-setsize", items.length);
    tile.setAttribute("aria-label", `${item.label === null ? "" : `${item.label}: `}${item.file}${item.excluded ? ", excluded" : ""}`);
    tile.toggleAttribute("data-excluded", item.excluded);
    text.textContent = item.label ?? item.file;
    image.dataset.bare = "";
    image.removeAttribute("src");
    image.alt = "";
  }

  function mark(tile) {
    tile.setAttribute("aria-selected", chosen.has(items[tile.at].id));
    tile.toggleAttribute("data-current", tile.at === current);
  }

  function draw() {
    scheduled = false;
    const height = row + 22, top = list.scrollTop, first = Math.max(0, Math.floor(top / height) - MORE) * columns;
    const end = Math.min(items.length, (Math.ceil((top + list.clientHeight) / height) + MORE) * columns);
    const there = new Map(), free = [];
    const shown = Math.floor(top / height) * columns, unseen = Math.ceil((top + list.clientHeight) / height) * columns;
    for (const tile of pool) (tile.at >= first && tile.at < end ? there.set(tile.at, tile) : free.push(tile));
    let early = 0;
    for (let at = first; at < end; at++) {
      let tile = there.get(at);
      if (!tile) {
        if ((at < shown || at >= unseen) && ++early > AT_ONCE) continue;
        tile = free.pop();
        if (!tile) { tile = newTile(); pool.push(tile); sheet.append(tile); }
        fill(tile, at);
        tile.hidden = false;
        tile.style.transform = `translate(${(at % columns) * row}px, ${Math.floor(at / columns) * height}px)`;
        mark(tile);
      }
      if (tile.row !== row) { tile.row = row; Object.assign(tile.style, { inlineSize: `${row}px`, blockSize: `${height}px` }); }
    }
    for (const tile of free) { tile.hidden = true; tile.at = -1; tile.removeAttribute("id"); }
    if (early > AT_ONCE) soon();
    const fast = Math.abs(top - last) > list.clientHeight / 2;
    last = top;
    if (!fast && waiting === null) load();
    else { clearTimeout(waiting); waiting = setTimeout(() => { waiting = null; load(); }, PAUSE); }
  }

  function load() {
    const size = SIZES.find((s) => s >= row * Math.min(2, devicePixelRatio)) ?? SIZES.at(-1);
    for (const tile of pool) {
      if (tile.at < 0 || tile.firstChild.dataset.bare === undefined) continue;
      tile.firstChild.src = thumbnail(items[tile.at].id, size);
      delete tile.firstChild.dataset.bare;
    }
  }

  const soon = () => { if (!scheduled) { scheduled = true; requestAnimationFrame(draw); } };
  list.addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(() => {
    if (!list.isConnected) return;
    const before = [columns, row];
    measure();
    if (before[0] === columns && before[1] === row) draw(); // tiles stay the same ones, or a double click would hit two
    else again();
  }).observe(list);

  function again() {
    measure();
    for (const tile of pool) tile.at = -1;
    draw();
  }

  function remark() {
    for (const tile of pool) if (tile.at >= 0) mark(tile);
    if (items[current]) list.setAttribute("aria-activedescendant", `tile-${items[current].id}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function seen(at) {
    const height = row + 22, top = Math.floor(at / columns) * height;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + height > list.scrollTop + list.clientHeight) list.scrollTop = top + height - list.clientHeight;
    draw();
  }

  const range = (from, to) => items.slice(Math.min(from, to), Math.max(from, to) + 1).map(({ id }) => id);
  function go(at, { extend = false, toggle = false, only = false } = {}) {
    if (!items.length) return;
    current = Math.max(0, Math.min(items.length - 1, at));
    if (extend) chosen = new Set([...(toggle ? chosen : []), ...range(anchor, current)]);
    else if (toggle) { if (!chosen.delete(items[current].id)) chosen.add(items[current].id); anchor = current; }
    else { anchor = current; if (only) chosen = new Set([items[current].id]); }
    seen(current);
    remark();
    on.current?.(items[current]);
    if (extend || toggle || only) on.chosen([...chosen]);
  }

  list.addEventListener("click", (event) => {
    const tile = event.target.closest("[role=option]");
    if (!tile) return;
    const mac = event.ctrlKey || event.metaKey;
    go(tile.at, { extend: event.shiftKey, toggle: mac || event.pointerType === "touch", only: true });
  });
  list.addEventListener("dblclick", (event) => { const tile = event.target.closest("[role=option]"); if (tile) on.open(items[tile.at]); });
  list.addEventListener("keydown", (event) => {
    if (event.altKey) return;
    const mac = event.ctrlKey || event.metaKey, page = Math.max(1, Math.floor(list.clientHeight / (row + 22))) * columns;
    const to = { ArrowLeft: current - 1, ArrowRight: current + 1, ArrowUp: current - columns, ArrowDown: current + columns, Home: 0, End: items.length - 1, PageUp: current - page, PageDown: current + page }[event.key];
    if (to !== undefined) go(to, { extend: event.shiftKey });
    else if (event.key === " ") go(current, { toggle: true, extend: false });
    else if (event.key === "Enter" && items[current]) on.open(items[current]);
    else if (event.key === "a" && mac) { chosen = new Set(items.map(({ id }) => id)); remark(); on.chosen([...chosen]); }
    else if (event.key === "Escape" && chosen.size) { chosen = new Set(); remark(); on.chosen([]); }
    else return;
    event.preventDefault();
  });
  list.addEventListener("focus", remark);

  return {
    element: list,
    show(given) {
      const id = items[current]?.id;
      items = given;
      places = new Map(items.map((item, at) => [item.id, at]));
      current = anchor = places.get(id) ?? 0;
      again();
      remark();
    },
    choose(ids) { chosen = new Set(ids); remark(); },
    resize(to) { side = to; const id = items[current]; again(); if (id) seen(current); },
    go: (id) => { if (places.has(id)) go(places.get(id)); },
    current: () => items[current] ?? null,
    around: (id, by) => items[(places.get(id) ?? -9e9) + by] ?? null,
  };
}
