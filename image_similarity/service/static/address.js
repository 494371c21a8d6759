// The state of the page, and how it is written into the address:
// /?collection=pets&item=7&count=24&threshold=0.8&coverage=0.95&duplicates=hide&label=Beagle&label=&meta.year=2020&match=9
// &right=3&wrong=5&region=0.1,0.2,0.5,0.6;0.4,0.4,0.7,0.9

export const COUNT = 24;

export const BLANK = {
  collection: null,
  item: null,         // id of an item of the collection
  picture: null,      // id of a picture of this browser, see pictures.js
  text: "",
  mix: 0.5,           // weight of the text beside a picture
  count: COUNT,       // how many pictures to show
  threshold: 0,
  coverage: 0,        // share of searches in which the set of results shall hold a match; 0: no set is asked for
  hideDuplicates: false,
  labels: [],         // any of these; "" is for those without a label
  metadata: {},       // name to value, as text
  view: null,         // of an item "recommended" pictures, of the collection its "duplicates"; null for the usual
  right: [],          // ids of results that are marked as right
  wrong: [],
  region: null,       // the part of the query that counts: boxes, each left, upper, right, lower, as shares of the picture
  match: null,        // id of the result that is compared with the query
};

const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/; // of a collection

const MOST_BOXES = 500;

function regionOf(text) {
  const boxes = text.split(";").slice(0, MOST_BOXES).map((box) => box.split(",").map(Number));
  return boxes.every((edges) => edges.length === 4 && edges.every((edge) => edge >= 0 && edge <= 1) && edges[0] < edges[2] && edges[1] < edges[3]) ? boxes : null;
}

export function read(search) {
  const asked = new URLSearchParams(search);
  const number = (name, least, most, otherwise) => {
    const n = Number(asked.get(name) ?? NaN);
    return n >= least && n <= most ? n : otherwise;
  };
  const id = (name) => (/^\d{1,15}$/.test(asked.get(name) ?? "") ? Number(asked.get(name)) : null);
  const ids = (name) => asked.getAll(name).filter((value) => /^[1-9]\d{0,14}$/.test(value)).map(Number).slice(0, 200);
  const metadata = {};
  for (const [name, value] of asked) if (name.startsWith("meta.")) metadata[name.slice(5)] = value;
  return {
    collection: NAME.test(asked.get("collection")) ? asked.get("collection") : null, item: id("item"), picture: asked.get("picture"), text: asked.get("text") ?? "",
    mix: number("mix", 0.1, 0.9, BLANK.mix), count: Math.floor(number("count", 1, 200, COUNT)),
    threshold: number("threshold", 0, 10, 0), coverage: number("coverage", 0.5, 0.99, 0), hideDuplicates: asked.get("duplicates") === "hide",
    labels: asked.getAll("label"), metadata, view: asked.get("view"), match: id("match"),
    right: ids("right"), wrong: ids("wrong"), region: regionOf(asked.get("region") ?? ""),
  };
}

export function write(state) {
  const said = new URLSearchParams();
  const put = (name, value, blank) => { if (value !== null && value !== blank) said.append(name, value); };
  put("collection", state.collection, null);
  put("item", state.item, null);
  put("picture", state.picture, null);
  put("text", state.text, "");
  put("mix", state.mix, BLANK.mix);
  put("count", state.count, COUNT);
  put("threshold", state.threshold, 0);
  put("coverage", state.coverage, 0);
  if (state.hideDuplicates) said.append("duplicates", "hide");
  for (const label of state.labels) said.append("label", label);
  for (const [name, value] of Object.entries(state.metadata)) said.append(`meta.${name}`, value);
  for (const id of state.right) said.append("right", id);
  for (const id of state.wrong) said.append("wrong", id);
  if (state.region) said.append("region", state.region.map((box) => box.join(",")).join(";"));
  put("view", state.view, null);
  put("match", state.match, null);
  return `/?${said}`;
}

// Whether the search is argued with, which a query with words cannot be.
export const isArgued = ({ item, picture, text, right, wrong, region }) => Boolean((item || picture) && !text && (right.length || wrong.length || region));
export const hasQuery = (state) => Boolean(state.item || state.picture || state.text);

// The views that there are of what is shown; the first is the usual one.
export function viewsOf({ item, picture, text }) {
  if (item && !picture && !text) return [[null, "Most similar"], ["recommended", "Recommended"]];
  return picture || text ? [] : [[null, "All pictures"], ["duplicates", "Duplicates"]];
}
export const viewOf = (state) => (viewsOf(state).some(([view]) => view === state.view) ? state.view : null);

// What decides which pictures are shown; the comparison and, but for "more", the count lie above it.
export const searchKey = (state) => write({ ...state, match: null });

// The condition in the API's words. Metadata has types there: the value is looked up among the collection's own.
export function whereOf(state, collection) {
  const where = {};
  if (state.labels.length) where.label = state.labels.map((label) => label || null);
  for (const [name, text] of Object.entries(state.metadata)) {
    const known = (collection.metadata?.[name] ?? []).filter((value) => String(value) === text);
    where[name] = known.length ? known : text;
  }
  return where;
}

export const refinements = (state) =>
  (state.threshold > 0) + (state.coverage > 0) + state.hideDuplicates + state.labels.length + Object.keys(state.metadata).length;
