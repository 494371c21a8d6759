// A grid of pictures in a notebook: click to select, y and n mark right and wrong. Thumbnails come when they are seen.
function render({ model, el }) {
  const ids = model.get("ids"), titles = model.get("titles"), size = model.get("size");
  const box = document.createElement("div"), said = document.createElement("p"), tiles = [], urls = new Map(), wanted = new Set();
  let current = 0, anchor = 0;
  el.append(said, box);
  said.setAttribute("role", "status");
  said.style.margin = "4px 0";
  box.tabIndex = 0;
  box.setAttribute("role", "listbox");
  box.setAttribute("aria-multiselectable", "true");
  box.setAttribute("aria-label", "Pictures: arrows move, space selects, y marks as right, n as wrong");
  Object.assign(box.style, { display: "grid", gridTemplateColumns: `repeat(auto-fill, minmax(${size}px, 1fr))`, gap: "6px", maxHeight: "32rem", overflowY: "auto", padding: "4px", colorScheme: "light dark" });

  const toggled = (name, id) => { const now = model.get(name); return now.includes(id) ? now.filter((other) => other !== id) : [...now, id]; };
  function set(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
    paint();
  }
  function mark(id, side) {
    const other = side === "right" ? "wrong" : "right";
    set({ [side]: toggled(side, id), [other]: model.get(other).filter((one) => one !== id) });
  }
  function go(at, { extend = false, toggle = false, only = false } = {}) {
    current = Math.max(0, Math.min(ids.length - 1, at));
    tiles[current].scrollIntoView({ block: "nearest" });
    if (extend) set({ selected: ids.slice(Math.min(anchor, current), Math.max(anchor, current) + 1) });
    else { anchor = current; if (toggle) set({ selected: toggled("selected", ids[current]) }); else if (only) set({ selected: [ids[current]] }); else paint(); }
  }
  function paint() {
    const [selected, right, wrong] = ["selected", "right", "wrong"].map((name) => new Set(model.get(name)));
    tiles.forEach((tile, at) => {
      const id = ids[at], sign = right.has(id) ? "✓ " : wrong.has(id) ? "✗ " : "";
      tile.setAttribute("aria-selected", selected.has(id));
      tile.style.outline = selected.has(id) ? "3px solid #17664f" : at === current && document.activeElement === box ? "2px solid" : "none";
      tile.lastChild.textContent = sign + titles[at];
    });
    if (tiles[current]) box.setAttribute("aria-activedescendant", tiles[current].id);
    const parts = [`${ids.length} pictures`, selected.size && `${selected.size} selected`, right.size && `${right.size} right`, wrong.size && `${wrong.size} wrong`];
    said.textContent = parts.filter(Boolean).join(" · ");
  }

  const key = Math.random().toString(36).slice(2);
  ids.forEach((id, at) => {
    const tile = document.createElement("div"), image = document.createElement("img"), text = document.createElement("div");
    tile.id = `${key}-${at}`;
    tile.dataset.at = at;
    tile.setAttribute("role", "option");
    tile.setAttribute("aria-label", titles[at]);
    image.alt = "";
    Object.assign(image.style, { display: "block", inlineSize: "100%", aspectRatio: "1", objectFit: "cover", background: "#8883" });
    Object.assign(text.style, { fontSize: "11px", whiteSpace: "nowrap", overflow: "hidden", textOverflow: "ellipsis" });
    tile.append(image, text);
    box.append(tile);
    tiles.push(tile);
  });
  const seen = new IntersectionObserver((entries) => {
    const want = entries.filter(({ isIntersecting, target }) => isIntersecting && !wanted.has(Number(target.dataset.at))).map(({ target }) => Number(target.dataset.at));
    for (const at of want) wanted.add(at);
    if (want.length) model.send({ want });
  }, { root: box, rootMargin: "200px" });
  for (const tile of tiles) seen.observe(tile);
  const got = (told, buffers) => {
    if (told?.at === undefined || !buffers.length) return;
    const url = URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" }));
    urls.set(told.at, url);
    tiles[told.at].firstChild.src = url;
  };
  model.on("msg:custom", got);
  for (const name of ["selected", "right", "wrong"]) model.on(`change:${name}`, paint);
  box.addEventListener("click", (event) => {
    const tile = event.target.closest("[role=option]");
    if (!tile) return;
    box.focus({ preventScroll: true });
    go(Number(tile.dataset.at), { extend: event.shiftKey, toggle: event.ctrlKey || event.metaKey, only: true });
  });
  box.addEventListener("focus", paint);
  box.addEventListener("blur", paint);
  box.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const columns = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
    const to = { ArrowLeft: current - 1, ArrowRight: current + 1, ArrowUp: current - columns, ArrowDown: current + columns, Home: 0, End: ids.length - 1 }[event.key];
    if (to !== undefined) go(to, { extend: event.shiftKey });
    else if (event.key === " ") go(current, { toggle: true });
    else if (event.key === "y") mark(ids[current], "right");
    else if (event.key === "n") mark(ids[current], "wrong");
    else return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has keys of its own
  });
  paint();
  return () => { seen.disconnect(); model.off("msg:custom", got); for (const url of urls.values()) URL.revokeObjectURL(url); };
}
export default { render };
