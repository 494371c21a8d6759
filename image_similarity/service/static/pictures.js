// Pictures that were dropped, pasted or chosen. They stay in this browser (IndexedDB), so that Back, Forward and a reload
// find them again; the address holds only an id.

const KEPT = 30;
const inMemory = new Map(); // also serves where IndexedDB is switched off

const asPromise = (request) => new Promise((done, failed) => {
  request.onsuccess = () => done(request.result);
  request.onerror = () => failed(request.error);
});

let opened = null;
function database() {
  opened ??= new Promise((done, failed) => {
    const request = indexedDB.open("image_similarity", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("pictures");
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });
  return opened;
}
const store = async (mode) => (await database()).transaction("pictures", mode).objectStore("pictures");

// Ids begin with the time, so that the oldest come first.
const newId = () => Date.now().toString(36) + [...crypto.getRandomValues(new Uint8Array(4))].map((b) => b.toString(16).padStart(2, "0")).join("");

// Returns the id of a picture that is kept from now on. `file` is a Blob, with a name or without.
export async function keep(file, name = file.name || "pasted picture") {
  const id = newId();
  const bytes = await file.arrayBuffer(); // a File in the database may be gone with the file
  const picture = { name, blob: new Blob([bytes], { type: file.type }) };
  inMemory.set(id, picture);
  try {
    const pictures = await store("readwrite");
    await asPromise(pictures.put(picture, id));
    const old = (await asPromise((await store("readonly")).getAllKeys())).slice(0, -KEPT);
    if (old.length) await asPromise((await store("readwrite")).delete(IDBKeyRange.upperBound(old.at(-1))));
  } catch { /* it lasts as long as the page */ }
  return id;
}

// { name, blob }, or null when it is not here (any more).
export async function recall(id) {
  if (!inMemory.has(id)) {
    try {
      const found = await asPromise((await store("readonly")).get(id));
      if (found) inMemory.set(id, found);
    } catch { return null; }
  }
  return inMemory.get(id) ?? null;
}

export async function forgetAll() {
  inMemory.clear();
  try { await asPromise((await store("readwrite")).clear()); } catch { /* nothing was kept */ }
}

// The same picture with its longest side at most `side`, as JPEG. Throws when the browser cannot read it.
export async function shrink(blob, side = 1600) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const smaller = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  if (!smaller) throw new Error("this browser cannot make it smaller");
  return smaller;
}
