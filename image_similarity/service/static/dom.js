// Making and finding elements. Text goes in as text nodes only: names of files and labels are not to be trusted.

export const $ = (selector, within = document) => within.querySelector(selector);

// el("p", {class: "note"}, "text", child): a property that starts with "on" is a listener; null and false are left out.
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

// Say something to those who listen to the page.
export function announce(text) { $("#live").textContent = text; }

export const plural = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
// What would only be rounded up to 100% is more than the last figure below it.
export const percent = (share, digits = 1) => {
  const shown = (100 * share).toFixed(digits);
  return share < 1 && Number(shown) === 100 ? `>${(100 - 10 ** -digits).toFixed(digits)}%` : `${shown}%`;
};
export const baseName = (file) => String(file).split(/[\\/]/).pop();

export function bytes(n) {
  const [size, unit] = n >= 1e9 ? [n / 1e9, "GB"] : n >= 1e6 ? [n / 1e6, "MB"] : [n / 1e3, "kB"];
  return `${size >= 10 ? Math.round(size) : size.toFixed(1)} ${unit}`;
}
