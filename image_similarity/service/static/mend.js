// What is probably wrong with the collection, by kind: each can be looked at, corrected or passed over on the spot.
import { el, plural } from "./dom.js";

const AT_ONCE = 24;
export const KINDS = { // as `inspect` says them
  "label": "The label is probably wrong.", "leak": "Also among the pictures that are held out.", "contradiction": "A copy has another label.",
  "loner": "Like nothing else here.", "blurred": "No edge is sharp.", "dark": "Even the brightest parts are dark.", "overexposed": "Even the darkest parts are bright.",
  "almost empty": "There is next to nothing on it.", "tiny": "It has few pixels.", "odd size": "Its size or shape is far from that of the others.",
};

// `on`: open(id), relabel(findings), exclude(findings).
export function makeMend({ thumbnail, on }) {
  const element = el("div", { class: "mend", tabindex: "0", role: "region", "aria-label": "What is probably wrong" });
  const most = new Map();
  let told = { findings: [], confused: [] }, files = new Map(), reviewed = new Set();

  function card(finding) {
    const file = files.get(finding.id) ?? `picture ${finding.id}`, sure = finding.kind === "label" ? `${Math.round(100 * finding.score)}%` : finding.score.toFixed(2);
    return el("li", { "data-id": finding.id, "data-kind": finding.kind },
      el("button", { type: "button", class: "shown", onclick: () => on.open(finding.id) }, el("img", { src: thumbnail(finding.id, 160), alt: file, loading: "lazy" })),
      el("p", {}, el("strong", {}, finding.label ?? "no label"), ` · ${finding.says} · ${sure}`, el("br"), el("span", { class: "file" }, file)),
      el("div", { class: "fixes" },
        finding.likely && el("button", { type: "button", onclick: () => on.relabel([finding]) }, `Label it ${finding.likely}`),
        finding.other && el("button", { type: "button", class: "quiet", onclick: () => on.open(finding.other) }, "See the other"),
        el("button", { type: "button", onclick: () => on.exclude([finding]) }, "Exclude"),
        el("button", { type: "button", class: "quiet", onclick: () => { reviewed.add(`${finding.kind} ${finding.id}`); paint(); } }, "It is fine")));
  }

  function paint() {
    const at = element.scrollTop, of = new Map(), focused = document.activeElement?.closest?.(".mend li");
    const next = focused && element.contains(focused) ? [...element.querySelectorAll("li")].indexOf(focused) : -1;
    for (const finding of told.findings) if (!reviewed.has(`${finding.kind} ${finding.id}`)) (of.get(finding.kind) ?? of.set(finding.kind, []).get(finding.kind)).push(finding);
    const sections = [...of].map(([kind, own]) => {
      const shown = own.slice(0, most.get(kind) ?? AT_ONCE), sure = own.filter(({ likely, score }) => likely && score >= 0.9);
      return el("section", { "aria-label": kind }, el("h2", {}, `${KINDS[kind] ?? kind} ${own.length.toLocaleString("en")}`),
        sure.length > 1 && el("button", { type: "button", onclick: () => on.relabel(sure) }, `Label all ${sure.length.toLocaleString("en")} that are at least 90% sure`),
        el("ul", { role: "list" }, ...shown.map(card)),
        own.length > shown.length && el("button", { type: "button", class: "show-more", onclick: () => { most.set(kind, 4 * shown.length); paint(); } }, "Show more"));
    });
    const confused = told.confused.filter(([, , share]) => share >= 0.05).slice(0, 12);
    element.replaceChildren(...sections, ...(confused.length ? [el("section", {}, el("h2", {}, "Classes that are confused"),
      el("ul", { role: "list", class: "plain" }, ...confused.map(([one, other, share]) => el("li", {}, el("p", {}, `${Math.round(100 * share)}% of ${one} look like ${other}`)))))] : []));
    if (!sections.length) element.replaceChildren(el("p", {}, "Nothing is wrong, as far as can be told."));
    element.scrollTop = at;
    if (next >= 0) [...element.querySelectorAll("li")][Math.min(next, element.querySelectorAll("li").length - 1)]?.querySelector(".fixes button")?.focus();
    return [...of.values()].reduce((sum, own) => sum + own.length, 0);
  }

  return {
    element,
    show(given, items) { told = given; files = new Map(items.map(({ id, file }) => [id, file])); return paint(); },
    csv() { // as `inspect --apply` reads it
      const cell = (value) => (/[",\n]/.test(String(value ?? "")) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
      const rows = told.findings.map((f) => [f.likely ? "relabel" : "", f.kind, f.id, files.get(f.id), f.label, f.score, f.says, f.likely, f.other ? files.get(f.other) : ""].map(cell).join(","));
      return ["fix,kind,id,path,label,score,says,likely,other", ...rows, ""].join("\n");
    },
    summary: () => plural(told.findings.length, "finding"),
  };
}
