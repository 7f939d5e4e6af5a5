// The picture with its objects: drawing, zoom and pan, and the pointer. Coordinates are pixels of the picture.
// It owns no data: `objects` are the page's, and what the pointer does is told through `on`.

const SVG = "http://www.w3.org/2000/svg";
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const MOVED = 4; // screen pixels, below which a press is a click
const CLICK_SHARE = 0.2; // of the picture's shorter side: half of the box that a click in it makes
const COARSE = matchMedia("(pointer: coarse)").matches;

function make(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  set(element, attributes);
  parent?.append(element);
  return element;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

export function colorOf(number) {
  const hue = (number * 0.618034) % 1;
  const [saturation, value] = [[0.85, 1], [1, 0.72], [0.5, 1]][number % 3];
  const channel = (n) => {
    const k = (n + hue * 6) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

export function cssOf([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

export function inkOn([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#191919" : "#ffffff";
}

export class View {
  constructor(svg, on) {
    this.svg = svg;
    this.on = on;
    this.size = [1, 1];
    this.objects = [];
    this.nodes = new Map();
    this.tool = "select";
    this.selected = null;
    this.layers = { boxes: true, points: true, masks: true };
    this.opacity = 0.5;
    this.pointers = new Map();
    this.picture = make("image", {}, svg);
    this.layer = make("g", {}, svg);
    this.draft = make("rect", { class: "draft", visibility: "hidden" }, svg);
    svg.addEventListener("pointerdown", (event) => this.press(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    svg.addEventListener("pointerup", (event) => this.release(event));
    svg.addEventListener("pointercancel", (event) => this.release(event, true));
    svg.addEventListener("pointerleave", () => !this.pointers.size && this.on.light(null));
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    svg.addEventListener("dblclick", () => this.tool === "select" && this.fit());
    new ResizeObserver(() => (this.fitted ? this.fit() : this.place())).observe(svg);
  }

  show(url, width, height) {
    this.size = [width, height];
    set(this.picture, { href: url, width, height });
    this.fit();
  }

  // --- zoom and pan
  fit() {
    const { clientWidth: w, clientHeight: h } = this.svg;
    if (!w || !h) return;
    this.scale = Math.min(w / this.size[0], h / this.size[1]) * 0.98;
    this.x = (this.size[0] - w / this.scale) / 2;
    this.y = (this.size[1] - h / this.scale) / 2;
    this.fitted = true;
    this.place();
  }

  zoom(factor, at) {
    const { left, top, width, height } = this.svg.getBoundingClientRect();
    const [px, py] = at ? [at[0] - left, at[1] - top] : [width / 2, height / 2];
    const scale = Math.min(Math.max(this.scale * factor, 0.02), 60);
    this.x += px / this.scale - px / scale;
    this.y += py / this.scale - py / scale;
    this.scale = scale;
    this.fitted = false;
    this.place();
  }

  pan(dx, dy) {
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
    this.fitted = false;
    this.place();
  }

  place() {
    const { clientWidth: w, clientHeight: h } = this.svg;
    if (!w || !h || !this.scale) return;
    set(this.svg, { viewBox: `${this.x} ${this.y} ${w / this.scale} ${h / this.scale}` });
    this.render();
  }

  toPicture(event) {
    const { left, top } = this.svg.getBoundingClientRect();
    return [this.x + (event.clientX - left) / this.scale, this.y + (event.clientY - top) / this.scale];
  }

  clamp([x, y]) {
    return [Math.min(Math.max(Math.round(x), 0), this.size[0]), Math.min(Math.max(Math.round(y), 0), this.size[1])];
  }

  wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), [event.clientX, event.clientY]);
  }

  // --- the pointer
  press(event) {
    if (event.button) return;
    this.svg.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size === 2) {
      this.letGo();
      this.draft.setAttribute("visibility", "hidden");
      return;
    }
    const id = event.target.closest("[data-id]")?.dataset.id;
    const object = this.objects.find((o) => String(o.id) === id);
    const start = this.toPicture(event);
    this.drag = { start, from: [event.clientX, event.clientY], moved: false, kind: "pan" };
    if (this.tool === "add") this.drag.kind = "add";
    else if (this.tool === "point") this.drag.kind = "point";
    else if (object) {
      Object.assign(this.drag, { kind: "box", object, box: [...object.box], handle: event.target.dataset.handle });
      this.on.select(object.id);
    }
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      const id = event.target.closest?.("[data-id]")?.dataset.id;
      this.on.light(id === undefined ? null : Number(id));
      return;
    }
    if (this.pointers.size === 2) {
      this.pinch(event);
      return;
    }
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (!this.drag) return;
    const [dx, dy] = [event.clientX - this.drag.from[0], event.clientY - this.drag.from[1]];
    if (!this.drag.moved && Math.hypot(dx, dy) < MOVED) return;
    this.drag.moved = true;
    const at = this.toPicture(event);
    if (this.drag.kind === "pan") {
      this.svg.classList.add("panning");
      this.pan(event.clientX - before[0], event.clientY - before[1]);
    } else if (this.drag.kind === "add") {
      const box = this.boxOf(this.drag.start, at);
      set(this.draft, { x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1], visibility: "visible" });
    } else if (this.drag.kind === "box") {
      if (!this.drag.told) this.on.before("change");
      this.drag.told = true;
      this.dragBox(at);
      this.render();
    }
  }

  pinch(event) {
    const [a, b] = [...this.pointers.entries()];
    const other = a[0] === event.pointerId ? b[1] : a[1];
    const before = this.pointers.get(event.pointerId);
    const now = [event.clientX, event.clientY];
    const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
    const distance = (p) => Math.max(Math.hypot(p[0] - other[0], p[1] - other[1]), 1);
    this.zoom(distance(now) / distance(before), middle);
    this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    this.pointers.set(event.pointerId, now);
  }

  dragBox(at) {
    const { object, box, handle, start } = this.drag;
    const [dx, dy] = [Math.round(at[0] - start[0]), Math.round(at[1] - start[1])];
    object.box = handle ? resized(box, handle, dx, dy, this.size) : moved(box, dx, dy, this.size);
  }

  release(event, canceled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.svg.classList.remove("panning");
    this.draft.setAttribute("visibility", "hidden");
    if (canceled) this.letGo();
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    const at = this.toPicture(event);
    const inside = at[0] >= 0 && at[1] >= 0 && at[0] <= this.size[0] && at[1] <= this.size[1];
    if (drag.kind === "add" && drag.moved) {
      const box = this.boxOf(drag.start, at);
      if (box[2] - box[0] > 1 && box[3] - box[1] > 1) this.on.add(box, null);
    } else if (drag.kind === "add" && inside) {
      const half = Math.max(2, Math.round(CLICK_SHARE * Math.min(...this.size)));
      this.on.add(this.boxOf([at[0] - half, at[1] - half], [at[0] + half, at[1] + half]), this.clamp(at));
    } else if (drag.kind === "point" && inside) {
      this.on.point(this.clamp(at));
    } else if (drag.kind === "box" && drag.moved) {
      this.on.changed(drag.object);
    } else if (drag.kind === "pan" && !drag.moved) {
      this.on.select(null);
    }
  }

  // The drag ends where it is, without a release.
  letGo() {
    if (this.drag?.told) this.on.changed(this.drag.object);
    this.drag = null;
  }

  boxOf(a, b) {
    const [x1, y1] = this.clamp([Math.min(a[0], b[0]), Math.min(a[1], b[1])]);
    const [x2, y2] = this.clamp([Math.max(a[0], b[0]), Math.max(a[1], b[1])]);
    return [x1, y1, x2, y2];
  }

  // --- drawing
  light(id) {
    this.layer.classList.toggle("lit", id !== null);
    for (const [key, node] of this.nodes) node.group.classList.toggle("on", key === id);
  }

  render() {
    if (!this.scale) return;
    const known = new Set(this.objects.map((object) => object.id));
    for (const [id, node] of this.nodes) {
      if (!known.has(id)) {
        node.group.remove();
        this.nodes.delete(id);
      }
    }
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const above = (object) => (object.id === this.selected ? -1 : area(object));
    const order = [...this.objects].sort((a, b) => above(b) - above(a)); // small ones above, so that they can be reached
    order.forEach((object, i) => {
      const node = this.nodes.get(object.id) ?? this.build(object);
      if (this.layer.children[i] !== node.group) this.layer.insertBefore(node.group, this.layer.children[i] ?? null);
      this.update(node, object, this.objects.indexOf(object));
    });
  }

  build(object) {
    const group = make("g", { class: "object", "data-id": object.id });
    const node = { group, mask: make("image", {}, group), rim: make("rect", { class: "rim" }, group) };
    node.box = make("rect", { class: "box" }, group);
    node.dot = make("circle", { class: "dot" }, group);
    node.tag = make("g", { class: "tag" }, group);
    node.plate = make("rect", {}, node.tag);
    node.text = make("text", { "text-anchor": "middle" }, node.tag);
    node.handles = HANDLES.map((name) => make("rect", { class: `handle ${name}`, "data-handle": name }, group));
    this.nodes.set(object.id, node);
    return node;
  }

  update(node, object, index) {
    const unit = 1 / this.scale;
    const color = cssOf(colorOf(index));
    const [x1, y1, x2, y2] = object.box;
    const selected = this.selected === object.id;
    node.group.classList.toggle("selected", selected);
    node.group.classList.toggle("busy", Boolean(object.busy));
    node.group.setAttribute("display", object.hidden ? "none" : "inline");
    const rect = { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) };
    const boxes = this.layers.boxes || selected;
    set(node.rim, { ...rect, visibility: boxes ? "visible" : "hidden" });
    set(node.box, { ...rect, stroke: boxes ? color : "transparent" });
    const drawing = object.drawing;
    set(node.mask, { opacity: this.opacity, visibility: drawing && this.layers.masks ? "visible" : "hidden" });
    if (drawing && node.drawn !== drawing) {
      set(node.mask, { href: drawing.url, x: drawing.x, y: drawing.y, width: drawing.width, height: drawing.height });
      node.drawn = drawing;
    }
    const dot = object.point && this.layers.points;
    set(node.dot, { visibility: dot ? "visible" : "hidden", fill: color, r: 5 * unit });
    if (object.point) set(node.dot, { cx: object.point[0], cy: object.point[1] });
    this.updateTag(node, rect, index, unit, color);
    node.handles.forEach((handle, i) => {
      const side = (COARSE ? 18 : 10) * unit;
      const [fx, fy] = placeOf(HANDLES[i]);
      const place = { x: x1 + fx * rect.width - side / 2, y: y1 + fy * rect.height - side / 2 };
      set(handle, { ...place, width: side, height: side, visibility: selected ? "visible" : "hidden" });
    });
  }

  updateTag(node, rect, index, unit, color) {
    const text = String(index + 1);
    const [width, height] = [(8 + 8 * text.length) * unit, 18 * unit];
    const above = rect.y - height >= Math.max(this.y, 0);
    const y = above ? rect.y - height : rect.y;
    set(node.plate, { x: rect.x, y, width, height, fill: color });
    node.text.textContent = text;
    const place = { x: rect.x + width / 2, y: y + 13.2 * unit, fill: inkOn(colorOf(index)) };
    set(node.text, { ...place, "font-size": 13 * unit });
  }
}

function placeOf(handle) {
  const x = handle.includes("w") ? 0 : handle.includes("e") ? 1 : 0.5;
  const y = handle.includes("n") ? 0 : handle.includes("s") ? 1 : 0.5;
  return [x, y];
}

export function moved([x1, y1, x2, y2], dx, dy, [width, height]) {
  const x = Math.min(Math.max(dx, -x1), width - x2);
  const y = Math.min(Math.max(dy, -y1), height - y2);
  return [x1 + x, y1 + y, x2 + x, y2 + y];
}

export function resized([x1, y1, x2, y2], handle, dx, dy, [width, height]) {
  let [a, b, c, d] = [x1, y1, x2, y2];
  if (handle.includes("w")) a = Math.min(Math.max(x1 + dx, 0), x2 - 1);
  if (handle.includes("e")) c = Math.max(Math.min(x2 + dx, width), x1 + 1);
  if (handle.includes("n")) b = Math.min(Math.max(y1 + dy, 0), y2 - 1);
  if (handle.includes("s")) d = Math.max(Math.min(y2 + dy, height), y1 + 1);
  return [a, b, c, d];
}
