// The service's HTTP API, as far as the page needs it. Every failure is an ApiError with the server's code and message;
// the code is "unreachable" when there was no answer at all.

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const CODES = { 401: "unauthorized", 404: "not_found", 413: "too_large", 503: "busy" }; // of answers that are not JSON
const unreachable = () => new ApiError(0, "unreachable", "The server is not responding.");

function failure(status, text) {
  let body = {};
  try { body = JSON.parse(text); } catch { /* a proxy's page */ }
  if (status === 401) toLogin();
  return new ApiError(status, body.code ?? CODES[status] ?? "failed", body.message ?? `The server answered ${status}.`);
}

// The login form leads back to "/": what was on the screen is kept for then.
function toLogin() {
  sessionStorage.setItem("after-login", location.search);
  location.assign("/login");
}

async function request(path, options) {
  let response;
  try { response = await fetch(path, options); } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (!response.ok) throw failure(response.status, await response.text());
  return response;
}

const get = async (path, signal) => (await request(path, { signal })).json();
const withJson = (method, body, signal) => ({
  method, signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});
const at = (collection, rest = "") => `/v1/collections/${encodeURIComponent(collection)}${rest}`;

export const service = () => get("/v1");
export const collections = async () => (await get("/v1/collections")).collections;
export const collection = (name, signal) => get(at(name), signal);
export const create = async (name, encoder) => (await request(at(name), withJson("PUT", { encoder }))).json();
export const item = (name, id, signal) => get(at(name, `/items/${id}`), signal);
export const jobs = async (name) => (await get(`/v1/jobs?collection=${encodeURIComponent(name)}`)).jobs;
export const allJobs = async () => (await get("/v1/jobs?limit=20")).jobs;
export const job = (id) => get(`/v1/jobs/${encodeURIComponent(id)}`);
export const cancelJob = async (id) => (await request(`/v1/jobs/${encodeURIComponent(id)}/cancel`, { method: "POST" })).json();

export function items(name, where, after, limit, signal) {
  const asked = new URLSearchParams({ after, limit });
  if (Object.keys(where).length) asked.set("where", JSON.stringify(where));
  return get(at(name, `/items?${asked}`), signal);
}

// `query` has a picture (a Blob), an item (its id), a text, or a text beside one of the others with its weight in `mix`.
export async function search(name, query, options, signal) {
  if (query.picture && !query.text) {
    const asked = new URLSearchParams({ options: JSON.stringify(options) });
    return (await request(at(name, `/search?${asked}`), rawPicture(query.picture, signal))).json();
  }
  return (await request(at(name, "/search"), withJson("POST", { ...(await inJson(query)), ...options }, signal))).json();
}

export const recommendations = (name, id, count, signal) => get(at(name, `/items/${id}/recommendations?top_k=${count}`), signal);

export const findCopies = async (name) => (await request(at(name, "/duplicates"), { method: "POST" })).json(); // the job
export const keptCopies = (name, signal) => get(at(name, "/duplicates/kept?limit=500"), signal);
export const decide = (name, first, second, verdict) => request(at(name, "/decisions"), withJson("POST", { first, second, verdict }));

export function duplicates(name, where, signal) {
  const asked = new URLSearchParams({ limit: 500 });
  if (Object.keys(where).length) asked.set("where", JSON.stringify(where));
  return get(at(name, `/duplicates?${asked}`), signal);
}

async function inJson({ picture, item, text, mix }) {
  const first = picture ? { image: await base64(await shrunk(picture)) } : item ? { item } : null;
  if (!first) return { text };
  return text ? { mixture: [{ ...first, weight: 1 - mix }, { text, weight: mix }] } : first;
}

const MOST = 700_000, SIDE = 1024; // bytes of a picture in JSON, which may have a megabyte; pixels of one that is made smaller

async function shrunk(blob) {
  if (blob.size <= MOST) return blob;
  const image = await createImageBitmap(blob), scale = Math.min(1, SIDE / Math.max(image.width, image.height));
  const canvas = Object.assign(document.createElement("canvas"), { width: Math.max(1, image.width * scale), height: Math.max(1, image.height * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done, failed) => canvas.toBlob((small) => small ? done(small) : failed(new Error("the picture cannot be made smaller")), "image/jpeg", 0.9));
}

async function base64(blob) {
  const url = await new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}

const rawPicture = (picture, signal) => ({
  method: "POST", signal, body: picture,
  headers: { "Content-Type": picture.type.startsWith("image/") ? picture.type : "application/octet-stream" },
});

// The overlay (a PNG Blob) of one of the two pictures of a pair, and what it cannot say: `which` is "query" or "match".
export async function explain(name, query, matchId, which, signal) {
  const path = at(name, `/explain?item=${matchId}&which=${which}`);
  const sent = query.picture ? rawPicture(query.picture, signal) : withJson("POST", { item: query.item }, signal);
  const answer = await request(path, sent);
  return { layer: await answer.blob(), caveat: answer.headers.get("Map-Note") ?? "" };
}

// Marks, a part of the query, a brush: `asked` is what the API's `argue` and `brush` take beside the query.
function arguing(name, path, query, asked, signal) {
  if (!query.picture) return request(at(name, path), withJson("POST", { item: query.item, ...asked }, signal));
  return request(at(name, `${path}${path.includes("?") ? "&" : "?"}${new URLSearchParams({ options: JSON.stringify(asked) })}`), rawPicture(query.picture, signal));
}
export const argue = async (name, query, asked, signal) => (await arguing(name, "/argue", query, asked, signal)).json();
export async function brush(name, query, match, away, signal) { // many dabs do not fit into an address
  if (!query.picture) return (await arguing(name, `/brush?match=${match}`, query, away, signal)).json();
  const form = new FormData();
  form.append("image", query.picture, "picture");
  form.append("options", JSON.stringify(away));
  return (await request(at(name, `/brush?match=${match}`), { method: "POST", body: form, signal })).json();
}
export const links = async (name, query, match, signal) => (await arguing(name, `/links?match=${match}`, query, {}, signal)).json();
export const suggestions = (name, n, signal) => get(at(name, `/suggestions?n=${n}`), signal);
export const feedbackAddress = (name) => at(name, "/feedback?undone=true");
export const feedback = (name, signal) => get(at(name, "/feedback"), signal);
const said = (path) => async (name, body) => (await request(at(name, `/feedback/${path}`), withJson("POST", body))).json();
export const [mark, stroke, answer] = [said("marks"), said("strokes"), said("answers")];
export const examples = (name, item) => said("examples")(name, { item });
export const predictions = (name, signal) => get(at(name, "/predictions?top_k=1"), signal);
export const undo = (name, ids) => said("undo")(name, { ids });
export const refit = (name, kind) => said("refit")(name, { kind });
export const goBack = (name, kind) => said("version")(name, { kind });

// Uploads go by XMLHttpRequest: fetch does not say how far it is.
function upload(path, body, type, progress, signal) {
  return new Promise((done, failed) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", path);
    if (type) xhr.setRequestHeader("Content-Type", type);
    xhr.upload.onprogress = ({ loaded, total }) => progress(loaded / total);
    xhr.onload = () => xhr.status < 300 ? done(JSON.parse(xhr.responseText)) : failed(failure(xhr.status, xhr.responseText));
    xhr.onerror = () => failed(unreachable());
    xhr.onabort = () => failed(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => xhr.abort());
    xhr.send(body);
  });
}

export function addPictures(name, files, label, progress, signal) {
  const form = new FormData();
  if (label) form.append("options", JSON.stringify({ label }));
  for (const file of files) form.append("files", file, file.name);
  return upload(at(name, "/items"), form, null, progress, signal);
}

export const train = (name, zip, labels, progress, signal) =>
  upload(at(name, `/train?labels=${encodeURIComponent(labels)}`), zip, "application/zip", progress, signal);

// The collection as a whole. Changes answer with what undoes them.
export const table = (name, signal) => get(at(name, "/table"), signal);
export const details = (name, id, signal) => get(at(name, `/items/${id}/details`), signal);
export const fullSize = (name, id) => at(name, `/items/${id}/full`);
export const thumbnail = (name, id, size) => at(name, `/items/${id}/thumbnail?size=${size}`);
export const ranking = async (name, id, signal) => (await get(at(name, `/items/${id}/ranking`), signal)).ids;
const whole = (path) => async (name, body) => (await request(at(name, path), withJson("POST", body))).json();
export const relabel = async (name, changes) => (await whole("/labels")(name, { changes })).changes;
export const exclude = (name, ids, excluded) => whole("/exclusions")(name, { ids, excluded });
export const takeOut = (name, ids) => whole("/removals")(name, { ids });
export const exported = async (name, ids, kind) => (await request(at(name, "/export"), withJson("POST", { ids, kind }))).blob();
export const drawMap = async (name) => (await request(at(name, "/map"), { method: "POST" })).json(); // the job
export const placeNew = async (name) => (await request(at(name, "/map"), { method: "PUT" })).json();
export const inspect = async (name) => (await request(at(name, "/inspection"), { method: "POST" })).json(); // the job
export const findings = (name, signal) => get(at(name, "/inspection"), signal);
