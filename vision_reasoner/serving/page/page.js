// The page: a picture and a request in, the answer as it comes, corrections, downloads.

import { Failure, drawMask, getJson, health, onKeyWanted, postJson, postPicture, readEvents } from "/service.js";
import { View, colorOf, cssOf, inkOn, moved, resized } from "/view.js";

const $ = (id) => document.getElementById(id);
const LOOK_MS = 700; // between two looks whether the model is loaded
const SEGMENT_MS = 150; // without another change, before a box's mask is asked for
const UNDO_STEPS = 100;

const state = { picture: null, objects: [], result: null, undo: [], stop: null, ready: false, next: 1, saving: true };

const view = new View($("view"), {
  select,
  light,
  before: remember,
  changed: (object) => follow(object, `box ${numberOf(object)} changed`),
  add,
  point: putPoint,
});

// --- words ------------------------------------------------------------------------------------------------------------
function say(text) {
  $("announce").textContent = text;
}

function fail(error) {
  if (error.name === "AbortError") return;
  $("error").textContent = error instanceof Failure ? error.message : `Something went wrong: ${error.message}`;
  $("error").hidden = false;
  if (!(error instanceof Failure)) console.error(error);
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

onKeyWanted(
  () =>
    new Promise((resolve) => {
      $("secret").value = "";
      $("key").onclose = () => resolve($("secret").value || null);
      $("key").showModal();
    }),
);

// --- the server -------------------------------------------------------------------------------------------------------
async function watchServer() {
  const { model: status, message } = await health();
  const words = { ready: "ready", loading: "loading the model…", gone: "the server is gone" };
  $("state").textContent = words[status] ?? `the model cannot be loaded: ${message}`;
  $("state").className = `state ${status}`;
  const was = state.ready;
  state.ready = status === "ready";
  if (state.ready && !was) getJson("/v1/models").then(({ saves_corrections: saves }) => (state.saving = saves), () => {});
  enable();
  setTimeout(watchServer, state.ready ? 10 * LOOK_MS : LOOK_MS);
}

function enable() {
  $("go").disabled = !state.picture || !state.ready || Boolean(state.stop);
  $("stop").hidden = !state.stop;
  $("undo").disabled = !state.undo.length;
  $("remove").disabled = view.selected === null;
  $("save").disabled = !state.saving;
}

// --- the picture ------------------------------------------------------------------------------------------------------
async function take(file) {
  $("error").hidden = true;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    fail(new Failure(0, "This file is no picture that the browser can show. Take a JPEG, PNG or WebP."));
    return;
  }
  state.stop?.abort();
  const canvas = element("canvas", { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { alpha: false });
  context.fillStyle = "#ffffff"; // as the server takes what is transparent
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0); // upright, whatever EXIF says
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  if (state.picture) URL.revokeObjectURL(state.picture.url);
  state.picture = { file, id: null, size: [bitmap.width, bitmap.height], url: URL.createObjectURL(blob) };
  clear();
  $("empty").hidden = true;
  for (const id of ["view", "tools", "layers"]) $(id).hidden = false;
  $("view").removeAttribute("hidden");
  $("view").style.setProperty("--ratio", bitmap.width / bitmap.height);
  view.show(state.picture.url, ...state.picture.size);
  say(`a picture of ${bitmap.width} by ${bitmap.height} pixels`);
  enable();
}

function clear() {
  Object.assign(state, { objects: [], result: null, undo: [] });
  $("result").hidden = true;
  $("saved").textContent = "";
  select(null);
  refresh();
}

async function showExamples() {
  const examples = await getJson("/examples.json").catch(() => []);
  for (const { image, query } of examples) {
    const button = element("button", { type: "button" });
    button.append(element("img", { src: image, alt: "", loading: "lazy" }), element("span", { textContent: query }));
    button.addEventListener("click", async () => {
      const blob = await (await fetch(image)).blob();
      $("query").value = query;
      $("task").value = "auto";
      await take(blob);
      if (state.ready) ask();
    });
    $("examples").append(element("li", {}, button));
  }
}

// --- asking -----------------------------------------------------------------------------------------------------------
async function ask() {
  if (!state.picture || !state.ready || !$("query").value.trim()) return;
  $("error").hidden = true;
  clear();
  const stop = (state.stop = new AbortController());
  enable();
  $("headline").textContent = "Waiting for the model…";
  $("result").hidden = false;
  for (const id of ["thought", "found", "take"]) $(id).hidden = true;
  $("warnings").replaceChildren();
  const { picture } = state;
  let text = "";
  let failure = null;
  try {
    const fields = { query: $("query").value, task: $("task").value, stream: true };
    const response = await postPicture("/v1/predict", picture, fields, stop.signal);
    await readEvents(response, {
      accepted: (data) => (picture.id = data.image_id),
      text: (data) => showText((text = text.slice(0, data.start) + data.text)),
      result: (data) => picture === state.picture && showResult(data),
      error: ({ error }) => (failure = new Failure(0, `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}.`)),
    });
    if (!state.result) throw failure ?? new Failure(0, "The server broke off. Try again.");
  } catch (error) {
    if (state.stop === stop) {
      $("headline").textContent = error.name === "AbortError" ? "Stopped." : "";
      fail(error);
    }
  } finally {
    if (state.stop === stop) state.stop = null;
    enable();
  }
}

function showText(text) {
  const [, thinking = text] = /^\s*<think>([^]*?)(?:<\/think>[^]*)?$/.exec(text) ?? [];
  const named = text.split(/"bbox(?:_2d)?"/).length - 1;
  $("headline").textContent = text.includes("<think>") ? "Thinking…" : "Answering…";
  $("progress").textContent = text.includes("</think>") ? `done; ${named} objects written down so far` : "…";
  $("thinking").textContent = thinking.replace(/<\/?(?:t|th|thi|thin|think)?$/, "");
  $("thought").hidden = false;
}

function showResult(result) {
  state.result = result;
  state.picture.id = result.image_id;
  const [width, height] = result.image_size;
  if (width !== state.picture.size[0] || height !== state.picture.size[1]) {
    state.picture.size = [width, height];
    view.show(state.picture.url, width, height);
  }
  state.objects = result.instances.map((found) => ({ ...found, id: state.next++ }));
  state.objects.forEach(draw);
  $("warnings").replaceChildren(...result.warnings.map((warning) => element("li", { textContent: warning })));
  $("progress").textContent = "";
  $("thought").hidden = !result.thinking;
  $("found").hidden = result.task === "vqa";
  $("take").hidden = false;
  showThinking(result);
  refresh();
}

// The thinking, with the places that it names marked by the object that they belong to. It names them in the model's
// own frame, as the reply does, so that the reply's objects tell which is which.
function showThinking({ thinking, reply, instances }) {
  const numbers = (text) => text.match(/\d+/g)?.map(Number) ?? [];
  const written = [...reply.slice(reply.indexOf("</think>") + 1).matchAll(/\{[^{}]*\}/g)].map(([item]) => ({
    box: numbers(/"bbox(?:_2d)?"\s*:\s*\[([^\]]*)\]/.exec(item)?.[1] ?? ""),
    point: numbers(/"point(?:_2d)?"\s*:\s*\[([^\]]*)\]/.exec(item)?.[1] ?? ""),
  }));
  const known = written.length === instances.length ? written : [];
  const pieces = [];
  let at = 0;
  for (const found of thinking.matchAll(/[[(]\s*\d+(?:\s*,\s*\d+){1,3}\s*[\])]/g)) {
    const place = numbers(found[0]);
    const index = ownerOf(place, known);
    if (index < 0) continue;
    const mark = element("mark", { textContent: found[0] });
    mark.dataset.id = state.objects[index].id;
    mark.style.borderColor = cssOf(colorOf(index));
    pieces.push(thinking.slice(at, found.index), mark);
    at = found.index + found[0].length;
  }
  $("thinking").replaceChildren(...pieces, thinking.slice(at));
}

function ownerOf(place, written) {
  const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
  const exact = written.findIndex(({ box, point }) => same(place, box) || same(place, point));
  if (exact >= 0 || place.length !== 2) return exact;
  const around = written
    .map(({ box: [x1, y1, x2, y2] }, i) => ({ i, inside: place[0] >= x1 && place[0] <= x2 && place[1] >= y1 && place[1] <= y2 }))
    .filter(({ inside }) => inside);
  return around.length === 1 ? around[0].i : -1;
}

function showHeadline() {
  const { result } = state;
  if (!result) return;
  const n = state.objects.length;
  const parts = [];
  if (result.task === "vqa") {
    const empty = !result.answer;
    parts.push(element("b", { className: "words", textContent: empty ? "No answer" : result.answer }));
    if (empty) parts.push("The model wrote nothing that answers this. Ask in other words.");
  } else if (n || (result.count && statedBy(result))) {
    const count = n || result.count;
    const verb = { counting: "counted", detection: "found", segmentation: count === 1 ? "found, with its mask" : "found, each with its mask" }[result.task];
    parts.push(element("b", { textContent: count }), `${count === 1 ? "object" : "objects"} ${verb}`);
  } else if (result.status === "none" || state.undo.length) {
    parts.push(element("b", { className: "words", textContent: "Nothing there" }));
    parts.push("Nothing in the picture matches the request.");
  } else {
    parts.push(element("b", { className: "words", textContent: "The reply could not be used" }));
    parts.push("The model did not answer in the form that is needed. Ask in other words.");
  }
  $("headline").replaceChildren(...parts);
}

// --- objects ----------------------------------------------------------------------------------------------------------
function numberOf(object) {
  return state.objects.indexOf(object) + 1;
}

function draw(object) {
  object.drawing = object.mask ? drawMask(object.mask, colorOf(numberOf(object) - 1)) : null;
  object.drawn = numberOf(object);
}

function refresh() {
  for (const object of state.objects) if (object.drawn !== numberOf(object)) draw(object);
  view.objects = state.objects;
  view.render();
  $("objects").replaceChildren(...state.objects.map(rowOf));
  $("hint").hidden = !state.objects.length;
  showHeadline();
  light(null);
  enable();
}

function rowOf(object) {
  const number = numberOf(object);
  const color = colorOf(number - 1);
  const badge = element("button", { type: "button", className: "number", textContent: number });
  badge.setAttribute("aria-label", `Select object ${number}`);
  badge.setAttribute("aria-pressed", String(view.selected === object.id));
  Object.assign(badge.style, { background: cssOf(color), color: inkOn(color) });
  badge.addEventListener("click", () => select(object.id));
  const word = element("input", { type: "text", maxLength: 200, placeholder: "a word for it" });
  word.value = object.label ?? "";
  word.setAttribute("aria-label", `Word for object ${number}`);
  word.addEventListener("change", () => {
    remember();
    object.label = word.value.trim() || null;
  });
  const known = object.confidence ?? object.score;
  const sure = typeof known === "number" ? `${Math.round(100 * known)} %` : "";
  const title = known === object.score ? "the segmenter's estimate of its mask's IoU" : "how probably it is right";
  const score = element("span", { className: "score", textContent: sure, title });
  const hide = element("button", { type: "button", className: "tiny", textContent: object.hidden ? "show" : "hide" });
  hide.setAttribute("aria-label", `${object.hidden ? "Show" : "Hide"} object ${number}`);
  hide.addEventListener("click", () => {
    object.hidden = !object.hidden;
    refresh();
  });
  const row = element("li", {}, badge, word, score, hide);
  row.dataset.id = object.id;
  row.classList.toggle("selected", view.selected === object.id);
  row.addEventListener("pointerenter", () => light(object.id));
  row.addEventListener("pointerleave", () => light(null));
  row.addEventListener("focusin", () => light(object.id));
  row.addEventListener("focusout", () => light(null));
  return row;
}

function light(id) {
  view.light(id);
  for (const node of document.querySelectorAll("#objects li, #thinking mark")) {
    node.classList.toggle("on", id !== null && node.dataset.id === String(id));
  }
}

function select(id) {
  view.selected = id;
  view.render();
  for (const row of $("objects").children) {
    const on = row.dataset.id === String(id);
    row.classList.toggle("selected", on);
    row.firstChild.setAttribute("aria-pressed", String(on));
    if (on) row.scrollIntoView({ block: "nearest" });
  }
  enable();
}

function selected() {
  return state.objects.find((object) => object.id === view.selected);
}

// --- corrections ------------------------------------------------------------------------------------------------------
function remember() {
  state.undo.push(state.objects.map((object) => ({ ...object, box: [...object.box] })));
  if (state.undo.length > UNDO_STEPS) state.undo.shift();
  $("saved").textContent = "";
}

function undo() {
  const before = state.undo.pop();
  if (!before) return;
  state.objects = before.map((object) => ({ ...object, busy: false }));
  if (!selected()) view.selected = null;
  refresh();
  state.objects.filter((_, i) => before[i].busy).forEach((object) => follow(object, "")); // its mask was of another box
  say("undone");
}

function add(box, point) {
  if (!state.result || state.result.task === "vqa") {
    fail(new Failure(0, "Ask for objects first; then boxes can be added."));
    return;
  }
  remember();
  const object = { id: state.next++, box, point, mask: null, score: null, label: null };
  state.objects.push(object);
  setTool("select");
  refresh();
  select(object.id);
  follow(object, `object ${numberOf(object)} added`, point !== null);
}

function putPoint(point) {
  const object = [selected(), ...state.objects].find((candidate) => candidate && isInside({ ...candidate, point }));
  if (!object) {
    fail(new Failure(0, "Click inside an object's box, or take Add for a new object."));
    return;
  }
  remember();
  object.point = point;
  select(object.id);
  refresh();
  follow(object, `point of object ${numberOf(object)} moved`);
}

function remove() {
  const object = selected();
  if (!object) return;
  remember();
  const number = numberOf(object);
  state.objects = state.objects.filter((other) => other !== object);
  view.selected = null;
  refresh();
  say(`object ${number} deleted`);
}

function nudge(dx, dy, resizing) {
  const object = selected();
  if (!object) return;
  remember();
  const { size } = state.picture;
  object.box = resizing ? resized(object.box, "se", dx, dy, size) : moved(object.box, dx, dy, size);
  refresh();
  follow(object, `box ${numberOf(object)} at ${object.box.join(", ")}`);
}

function isInside({ box: [x1, y1, x2, y2], point }) {
  return point && point[0] >= x1 && point[0] <= x2 && point[1] >= y1 && point[1] <= y2;
}

// After a change of an object: its point stays inside, and in a segmentation its mask follows.
function follow(object, words, tighten = false) {
  say(words);
  if (!isInside(object)) object.point = null;
  refresh();
  if (state.result.task !== "segmentation") return;
  clearTimeout(object.timer);
  object.busy = true;
  view.render();
  object.timer = setTimeout(() => segment(object, tighten), SEGMENT_MS);
}

async function segment(object, tighten) {
  const { picture } = state; // another one may be taken meanwhile
  const asked = JSON.stringify([object.box, object.point]);
  const isOld = () => !state.objects.includes(object) || asked !== JSON.stringify([object.box, object.point]);
  try {
    const fields = { boxes: JSON.stringify([object.box]), points: JSON.stringify([object.point]) };
    const { instances, image_id: id } = await (await postPicture("/v1/segment", picture, fields)).json();
    picture.id = id;
    if (isOld()) return;
    Object.assign(object, { mask: instances[0].mask, score: instances[0].score, busy: false });
    draw(object);
    const { drawing } = object;
    if (tighten && drawing) {
      object.box = [drawing.x, drawing.y, drawing.x + drawing.width, drawing.y + drawing.height];
      if (!isInside(object)) object.point = null;
    }
    say(`mask of object ${numberOf(object)} made`);
  } catch (error) {
    if (isOld()) return;
    Object.assign(object, { mask: null, score: null, busy: false }); // the one that it has is of another box
    draw(object);
    fail(error);
  }
  refresh();
}

// --- results ----------------------------------------------------------------------------------------------------------
// An answer; a count that the reply stated without objects, until somebody changes them.
function statedBy({ task, answer }) {
  return task === "counting" && state.undo.length ? null : answer;
}

function resultBody() {
  const { result, picture } = state;
  const objects = state.objects.map(({ box, point, mask, score, label }) => ({ box, point, mask, score, label }));
  const { query, task, thinking } = result;
  return { image_id: picture.id, query, task, thinking, answer: statedBy(result), objects };
}

// Once all masks have followed their boxes. The server keeps pictures for a while only; where it has forgotten this one
// it is sent again.
async function postResult(path, more = {}) {
  const { picture, result } = state;
  while (state.objects.some(({ busy }) => busy)) await new Promise((resolve) => setTimeout(resolve, SEGMENT_MS));
  if (result !== state.result) throw new DOMException("something else was asked", "AbortError");
  const body = { ...resultBody(), ...more };
  try {
    return await postJson(path, body);
  } catch (error) {
    if (error.status !== 404) throw error;
    const whole = JSON.stringify([[0, 0, ...picture.size]]);
    const response = await postPicture("/v1/segment", { ...picture, id: null }, { boxes: whole });
    picture.id = (await response.json()).image_id;
    return postJson(path, { ...body, image_id: picture.id });
  }
}

async function save() {
  $("error").hidden = true;
  try {
    const { saved, file } = await (await postResult("/v1/corrections")).json();
    $("saved").textContent = `Saved: ${saved} in ${file}`;
  } catch (error) {
    fail(error);
  }
}

async function download() {
  $("error").hidden = true;
  try {
    const response = await postResult("/v1/export", { format: $("format").value });
    const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition"))?.[1] ?? "result";
    const url = URL.createObjectURL(await response.blob());
    element("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  } catch (error) {
    fail(error);
  }
}

// --- what people do ---------------------------------------------------------------------------------------------------
function setTool(tool) {
  view.tool = tool;
  $("view").setAttribute("class", `view ${tool}`);
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-checked", String(button.dataset.tool === tool));
  }
}

function onKey(event) {
  const typing = event.target.matches("input, textarea, select");
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && !typing) {
    event.preventDefault();
    undo();
  }
  if (typing || event.ctrlKey || event.metaKey || !state.picture) return;
  const step = event.shiftKey ? 10 : 1;
  const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  const keys = {
    v: () => setTool("select"),
    b: () => setTool("add"),
    p: () => setTool("point"),
    Delete: remove,
    Backspace: remove,
    Escape: () => select(null),
    "+": () => view.zoom(1.25),
    "-": () => view.zoom(0.8),
    0: () => view.fit(),
  };
  if (ways[event.key] && view.selected !== null) nudge(...ways[event.key], event.altKey);
  else if (ways[event.key] && event.target === $("view")) view.pan(...ways[event.key].map((value) => -40 * Math.sign(value)));
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
}

function listen() {
  $("choose").addEventListener("click", () => $("file").click());
  $("another").addEventListener("click", () => $("file").click());
  $("shoot").addEventListener("click", () => $("camera").click());
  for (const id of ["file", "camera"]) {
    $(id).addEventListener("change", ({ target }) => {
      if (target.files.length) take(target.files[0]);
      target.value = "";
    });
  }
  document.addEventListener("paste", ({ clipboardData }) => {
    const [file] = clipboardData.files;
    if (file) take(file);
  });
  $("drop").addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  $("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("query").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      ask();
    }
  });
  $("stop").addEventListener("click", () => state.stop?.abort());
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => setTool(button.dataset.tool));
  }
  for (const box of document.querySelectorAll("[data-layer]")) {
    box.addEventListener("change", () => {
      view.layers[box.dataset.layer] = box.checked;
      view.render();
    });
  }
  $("opacity").addEventListener("input", ({ target }) => {
    view.opacity = target.value / 100;
    view.render();
  });
  $("thinking").addEventListener("pointerover", ({ target }) => light(target.dataset.id ? Number(target.dataset.id) : null));
  $("thinking").addEventListener("pointerleave", () => light(null));
  $("undo").addEventListener("click", undo);
  $("remove").addEventListener("click", remove);
  $("out").addEventListener("click", () => view.zoom(0.8));
  $("in").addEventListener("click", () => view.zoom(1.25));
  $("fit").addEventListener("click", () => view.fit());
  $("save").addEventListener("click", save);
  $("download").addEventListener("click", download);
  document.addEventListener("keydown", onKey);
}

listen();
showExamples();
watchServer();
