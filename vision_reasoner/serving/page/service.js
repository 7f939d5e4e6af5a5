// Talks to the server: requests, events as they come, errors in words; and reads COCO's run lengths.

let askForKey = async () => null;

export function onKeyWanted(ask) {
  askForKey = ask;
}

export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem("key");
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure(0, "The server cannot be reached. Is it still running?");
    }
    if (response.status === 401) {
      const given = await askForKey();
      if (given) {
        sessionStorage.setItem("key", given);
        continue;
      }
    }
    if (!response.ok) throw new Failure(response.status, await wordsOf(response));
    return response;
  }
}

async function wordsOf(response) {
  let words = "";
  try {
    words = (await response.json()).error.message;
  } catch {
    words = `the server answered with status ${response.status}`;
  }
  const wait = response.headers.get("Retry-After");
  words = words.charAt(0).toUpperCase() + words.slice(1);
  return wait ? `${words} (in about ${wait} s).` : /[.!?]$/.test(words) ? words : `${words}.`;
}

export async function getJson(path) {
  return (await call(path)).json();
}

export async function postJson(path, body) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return call(path, options);
}

export async function health() {
  const response = await fetch("/healthz").catch(() => null);
  return response?.ok ? response.json() : { model: "gone" };
}

// Sends a form with the picture's id, or where the server does not have it (any more) with the picture itself.
export async function postPicture(path, picture, fields, signal) {
  const send = (withFile) => {
    const form = new FormData();
    if (withFile) form.append("image", picture.file, "picture");
    else form.append("image_id", picture.id);
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    return call(path, { method: "POST", body: form, signal });
  };
  if (!picture.id) return send(true);
  try {
    return await send(false);
  } catch (error) {
    if (error.status !== 404) throw error;
    return send(true);
  }
}

// Calls `on[event](data)` for each server-sent event of a response.
export async function readEvents(response, on) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const lines = buffer.slice(0, end).split("\n");
      buffer = buffer.slice(end + 2);
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
      if (name && data) on[name]?.(JSON.parse(data));
    }
  }
}

// The pixels inside a mask of COCO's compressed run lengths: a canvas in one color, and the box that it covers.
export function drawMask(mask, [red, green, blue]) {
  const [height, width] = mask.size;
  const lengths = [];
  for (let i = 0; i < mask.counts.length; ) {
    let value = 0;
    let shift = 0;
    let digit;
    do {
      digit = mask.counts.charCodeAt(i++) - 48;
      value |= (digit & 31) << shift;
      shift += 5;
    } while (digit & 32);
    if (digit & 16) value |= -1 << shift;
    lengths.push(lengths.length > 2 ? value + lengths[lengths.length - 2] : value);
  }
  const runs = [];
  let at = 0;
  let [left, top, right, bottom] = [width, height, 0, 0];
  lengths.forEach((length, i) => {
    if (i % 2 && length) {
      const [first, last] = [Math.floor(at / height), Math.floor((at + length - 1) / height)];
      const whole = first !== last;
      runs.push([at, at + length]);
      left = Math.min(left, first);
      right = Math.max(right, last + 1);
      top = Math.min(top, whole ? 0 : at % height);
      bottom = Math.max(bottom, whole ? height : ((at + length - 1) % height) + 1);
    }
    at += length;
  });
  if (!runs.length) return null;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [right - left, bottom - top];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (const [from, to] of runs) {
    for (let pixel = from; pixel < to; pixel++) {
      const [x, y] = [Math.floor(pixel / height) - left, (pixel % height) - top];
      image.data.set([red, green, blue, 255], 4 * (y * canvas.width + x));
    }
  }
  context.putImageData(image, 0, 0);
  return { url: canvas.toDataURL(), x: left, y: top, width: canvas.width, height: canvas.height };
}
