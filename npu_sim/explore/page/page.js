// Shows what the server answers; every figure comes from it, none is computed here.
"use strict";

const SIDES = ["a", "b"];
const SETTLED_MS = 150;
const SILENT = "The simulator does not answer: is npu-sim explore still running?";
const views = {};
const explore = (window.explore = { times: { roofline: [], tiles: [] }, views });
let page; // controls, defaults, and what each NPU has of its own
let two = false;

const find = (selector, root = document) => root.querySelector(selector);

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const picture = (width, height, label) =>
  draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });

const words = (text, x, y, more = {}) => draw("text", { x, y, ...more }, text);

function prefixed(value) {
  for (const [prefix, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (value >= size) return `${+(value / size).toPrecision(3)} ${prefix}`;
  return `${+value.toPrecision(3)} `;
}

const ms = (value) => `${+value.toPrecision(3)}`.replace("-", "\u2212");

// ---- the link: what differs from what the page begins with -------------------------------------

function link() {
  const said = new URLSearchParams();
  if (two) said.set("two", "1");
  for (const side of two ? SIDES : ["a"])
    for (const { name } of page.controls) {
      const text = find(`#${side}-${name}`).value.trim();
      if (text !== (page.defaults[name] ?? "")) said.set(`${side}.${name}`, text);
    }
  return `#${said}`;
}

function follow() {
  const said = new URLSearchParams(location.hash.slice(1));
  two = said.get("two") === "1";
  for (const side of SIDES)
    for (const { name, choices } of page.controls) {
      const input = find(`#${side}-${name}`);
      const text = said.get(`${side}.${name}`) ?? page.defaults[name] ?? "";
      if (choices.length && !choices.includes(text)) {
        find(`option[data-foreign]`, input)?.remove(); // the simulator says what is wrong with it
        input.append(make("option", { value: text, "data-foreign": "" }, text));
      }
      input.value = text;
    }
}

// ---- controls ----------------------------------------------------------------------------------

function control(side, { name, label, unit, choices, hint }) {
  const id = `${side}-${name}`;
  const about = { id, "aria-describedby": `${id}-hint ${id}-wrong` };
  const input = choices.length
    ? make("select", about, ...choices.map((text) => make("option", { value: text }, text)))
    : make("input", { ...about, type: "text", inputmode: "decimal", spellcheck: "false" });
  if (!unit) input.classList.add("wide");
  const row = make("div", { class: "row" }, make("label", { for: id }, label), input);
  if (unit) row.append(make("span", { class: "unit" }, unit));
  const below = [make("p", { class: "hint", id: `${id}-hint` }, hint)];
  below.push(make("p", { class: "wrong", id: `${id}-wrong`, "aria-live": "polite" }));
  input.addEventListener("input", () => changed(side));
  return make("div", { class: "control", "data-name": name }, row, ...below);
}

function build(side) {
  const article = find("#side").content.cloneNode(true).firstElementChild;
  article.id = `side-${side}`;
  article.setAttribute("aria-label", `Side ${side.toUpperCase()}`);
  find("h2", article).textContent = side.toUpperCase();
  const form = find("form", article);
  form.setAttribute("aria-label", `Controls of side ${side.toUpperCase()}`);
  form.append(...page.controls.map((one) => control(side, one)));
  form.addEventListener("submit", (event) => event.preventDefault());
  if (side === "a") find(".answer", article).id = "figures";
  find("#sides").append(article);
  views[side] = { side, article, version: 0, since: 0, busy: {}, done: {}, tiles: null };
}

const given = (side) =>
  Object.fromEntries(
    page.controls
      .map(({ name }) => [name, find(`#${side}-${name}`).value.trim()])
      .filter(([, text]) => text),
  );

function hints(side) {
  const { npu, beams } = given(side);
  const own = page.own[npu] ?? {};
  for (const [name, text] of Object.entries(own)) find(`#${side}-${name}`).placeholder = text;
  find(`#${side}-npu-hint`).textContent = page.titles[npu] ?? "";
  find(`#${side}-context`).placeholder = "exact";
  find(`#${side}-kept`).placeholder = "measured";
  for (const name of ["draft_len", "kept"]) {
    const input = find(`#${side}-${name}`);
    input.disabled = beams === undefined || beams === "0";
    input.closest(".control").classList.toggle("off", input.disabled);
  }
}

function layout() {
  find("#two").checked = two;
  find("#sides").className = two ? "two" : "one";
  views.b.article.hidden = !two;
  if (!two) hideDifference();
}

// ---- questions: at most one of a kind under way, always followed by the newest -----------------

function changed(side) {
  const view = views[side];
  view.version += 1;
  view.since = performance.now();
  view.article.classList.add("old");
  hints(side);
  history.replaceState(null, "", link());
  work(view, "roofline");
}

async function post(path, question) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  });
  const found = await answer.json();
  return answer.ok ? found : { refused: found };
}

async function work(view, kind) {
  if (view.busy[kind]) return;
  view.busy[kind] = true;
  try {
    while (view.done[kind] !== view.version) {
      const { version, since, side } = view;
      const slow = setTimeout(() => status(view, "Simulating tiles: long requests take a while, " +
        "and the first one on a machine compiles code, for up to a minute."), 2000);
      const found = await post(`/api/${kind}`, given(side)).finally(() => clearTimeout(slow));
      view.done[kind] = version;
      find("#notice").hidden = true;
      if (version !== view.version) continue;
      if (found.refused) refused(view, found.refused);
      else (kind === "tiles" ? showTiles : showRoofline)(view, found, since);
    }
  } catch (error) {
    notice(SILENT);
    view.done[kind] = view.version;
    console.error(error);
  } finally {
    view.busy[kind] = false;
  }
}

function notice(text) {
  find("#notice").textContent = text;
  find("#notice").hidden = false;
}

function painted(kind, since) {
  requestAnimationFrame(() =>
    setTimeout(() => {
      explore.times[kind].push(performance.now() - since);
      const last = (name) => explore.times[name].at(-1)?.toFixed(0) ?? "\u2013";
      find("#times").textContent =
        `Last redraw: roofline ${last("roofline")} ms, tiles ${last("tiles")} ms.`;
    }),
  );
}

function status(view, text) {
  find(".state", view.article).textContent = text;
}

function mark(view, name, text) {
  for (const { name: other } of page.controls) {
    const input = find(`#${view.side}-${other}`);
    input.setAttribute("aria-invalid", String(other === name));
    find(`#${view.side}-${other}-wrong`).textContent = other === name ? text : "";
  }
}

function refused(view, { error, control: name }) {
  mark(view, name, error);
  status(view, name ? "Not simulated: see the control that is marked." : error);
  hideDifference();
}

// ---- answers -----------------------------------------------------------------------------------

function figures(view, found, kind) {
  const list = find(".figures", view.article);
  for (const { name, label, value, text } of found.figures) {
    let box = find(`[data-name=${name}]`, list);
    if (!box) {
      box = make("div", { "data-name": name, class: label.toLowerCase() });
      box.append(make("dt", {}, label), make("dd", { class: "tiles" }, "\u2013"));
      if (name !== "budget_left_ms") box.append(make("dd", { class: "roofline" }));
      list.append(box);
    }
    const place = find(`.${kind}`, box);
    if (!place) continue;
    place.textContent = kind === "tiles" ? text : `roofline ${text}`;
    place.dataset.value = value;
  }
}

function showRoofline(view, found, since) {
  mark(view, null, "");
  figures(view, found, "roofline");
  find(".command code", view.article).textContent = found.command;
  status(view, "Roofline is there; tiles follow.");
  painted("roofline", since);
  // not for each key of a number that is being typed
  setTimeout(() => work(view, "tiles"), since + SETTLED_MS - performance.now());
}

function showTiles(view, found, since) {
  const { article } = view;
  figures(view, found, "tiles");
  article.classList.toggle("met", found.met);
  article.classList.toggle("missed", !found.met);
  find(".expected", article).textContent = found.expected ?? "Not validated: none was measured " +
    "on this NPU as it is, or not in this way.";
  view.tiles = found;
  drawAll(view);
  article.classList.remove("old");
  status(view, `${found.title}: simulated, tile by tile.`);
  painted("tiles", since);
  if (two) difference();
}

function drawAll({ article, tiles: { pictures, run } }) {
  for (const figure of article.querySelectorAll("figure")) figure.hidden = false;
  drawRoofline(find("figure.roofline", article), pictures.roofline);
  drawBreakdown(find("figure.breakdown", article), pictures.breakdown);
  drawGantt(find("figure.gantt", article), pictures.gantt, run);
}

// A dot of the picture is one of the screen, so that letters have one size everywhere.
function room(figure) {
  const style = getComputedStyle(figure);
  const inside = figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  return Math.max(300, Math.round(inside) || 560);
}

function caption(figure, title, note) {
  find("figcaption", figure).replaceChildren(title, " ", make("small", {}, note));
}

function keys(entries) {
  const list = make("ul", { class: "keys" });
  for (const [name, colour, shape] of entries) {
    const sign = draw("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, shape ??
      draw("rect", { x: 1, y: 1, width: 10, height: 10, fill: colour }));
    list.append(make("li", {}, sign, name));
  }
  return list;
}

// A shape for each phase, so that colours are not needed to tell them apart.
function dot(number, x, y, r, colour) {
  const more = { fill: colour, class: "dot" };
  if (number === 0) return draw("circle", { cx: x, cy: y, r, ...more });
  if (number === 1) return draw("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, ...more });
  return draw("path", { d: `M${x} ${y - r}l${r} ${2 * r}h${-2 * r}z`, ...more });
}

function drawRoofline(figure, { roofs, bytes_per_s: rate, phases, above }) {
  const width = room(figure), height = 330, left = 62, right = 12, top = 10, bottom = 42;
  const points = phases.flatMap((phase) => phase.points);
  const peak = Math.max(...Object.values(roofs));
  const floor = (v) => Math.floor(Math.log10(v)), ceil = (v) => Math.ceil(Math.log10(v));
  const x0 = floor(Math.min(0.5, ...points.map((p) => p[0])));
  const x1 = ceil(Math.max((4 * peak) / (2 * rate), ...points.map((p) => p[0])));
  const y0 = floor(Math.min(peak, ...points.map((p) => p[1])));
  const y1 = ceil(1.5 * Math.max(peak, ...points.map((p) => p[1])));
  const x = (v) => left + ((Math.log10(v) - x0) / (x1 - x0)) * (width - left - right);
  const y = (v) => height - bottom - ((Math.log10(v) - y0) / (y1 - y0)) * (height - top - bottom);
  const svg = picture(width, height, `Roofline: ${points.length} different products under a slope ` +
    `of ${prefixed(rate)}B/s and a peak of ${prefixed(peak)} operations per second.`);
  for (let power = x0; power <= x1; power++) {
    const at = x(10 ** power);
    svg.append(draw("line", { x1: at, x2: at, y1: top, y2: height - bottom, class: "grid" }));
    svg.append(words(prefixed(10 ** power), at, height - bottom + 16, { "text-anchor": "middle", class: "soft" }));
  }
  for (let power = y0; power <= y1; power++) {
    const at = y(10 ** power);
    svg.append(draw("line", { x1: left, x2: width - right, y1: at, y2: at, class: "grid" }));
    svg.append(words(prefixed(10 ** power), left - 6, at + 4, { "text-anchor": "end", class: "soft" }));
  }
  svg.append(words("MACs per byte of DRAM traffic", (left + width) / 2, height - 6, { "text-anchor": "middle", class: "soft" }));
  svg.append(words("operations per second", 0, 0, { class: "soft", "text-anchor": "middle",
    transform: `translate(13 ${(height - bottom) / 2}) rotate(-90)` }));
  const dashes = ["none", "7 4", "2 3"];
  Object.entries(roofs).forEach(([name, top_], number) => {
    const ridge = top_ / (2 * rate);
    const from = Math.max(10 ** x0, 10 ** y0 / (2 * rate));
    const path = `M${x(from)} ${y(2 * rate * from)}L${x(ridge)} ${y(top_)}L${width - right} ${y(top_)}`;
    svg.append(draw("path", { d: path, class: "roof", "stroke-dasharray": dashes[number] ?? "none" }));
  });
  phases.forEach(({ name, colour, points: some }, number) => {
    for (const [px, py, count] of some) {
      const shape = dot(number, x(px), y(py), 2.6 + Math.min(3, Math.log10(count)), colour);
      shape.append(draw("title", {}, `${name}: ${prefixed(px)}MACs per byte, ${prefixed(py)}op/s, ${count} times`));
      svg.append(shape);
    }
  });
  const signs = phases.map(({ name, colour, without_traffic: n }, i) =>
    [n ? `${name} (${n} without traffic have no place)` : name, colour, dot(i, 6, 6, 4.5, colour)]);
  Object.keys(roofs).forEach((name, i) => signs.push([`peak of ${name}`, "",
    draw("path", { d: "M0 6h12", class: "roof", "stroke-dasharray": dashes[i] ?? "none" })]));
  const note = above ? `; ${above} above the roofs: weights came, or work began, during earlier operations` : "";
  caption(figure, "Roofline", `a sign is a product of one call${note}`);
  find(".drawing", figure).replaceChildren(svg, keys(signs));
}

function drawBreakdown(figure, { causes, kinds }) {
  const width = room(figure), row = 23, left = 92, right = 70, top = 6;
  const shown = kinds.filter(({ ms: parts }) => parts.some((part) => part > 0));
  const total = ({ ms: parts }) => parts.reduce((a, b) => a + b, 0);
  const most = Math.max(...shown.map(total));
  const said = shown.map((kind) => `${kind.name} ${ms(total(kind))} ms`).join(", ");
  const svg = picture(width, top + row * shown.length + 4, `Where the time goes: ${said}.`);
  shown.forEach((kind, number) => {
    const y = top + number * row;
    let x = left;
    svg.append(words(kind.name, left - 8, y + 15, { "text-anchor": "end" }));
    kind.ms.forEach((part, cause) => {
      const wide = (part / most) * (width - left - right);
      const bar = draw("rect", { x, y: y + 3, width: wide, height: row - 7, fill: causes[cause].colour, class: "bar" });
      bar.append(draw("title", {}, `${kind.name}, ${causes[cause].name}: ${ms(part)} ms`));
      if (wide > 0) svg.append(bar);
      x += wide;
    });
    svg.append(words(`${ms(total(kind))} ms`, x + 6, y + 15, { class: "soft" }));
  });
  caption(figure, "Where the time goes", "each kind of operation, by what it waits for");
  const list = keys(causes.map(({ name, colour }) => [name, colour]));
  find(".drawing", figure).replaceChildren(svg, list);
}

function drawGantt(figure, { engines, parts, spans, phase }, run) {
  const width = room(figure), lane = 24, left = 74, right = 14, head = 24, foot = 26;
  const block = head + engines.length * lane + foot;
  const busy = Object.entries(run.engine_cycles)
    .map(([name, cycles]) => `${name} ${((100 * cycles) / run.cycles).toFixed(0)} %`).join(", ");
  const svg = picture(width, block * spans.length, `Engines over time in ${phase}. Of the whole ` +
    `request they are busy: ${busy}.`);
  const seen = new Set();
  spans.forEach(({ name, us, bars }, number) => {
    const y0 = number * block + head, bottom = y0 + engines.length * lane;
    const x = (at) => left + (at / us) * (width - left - right);
    svg.append(words(name, left, y0 - 8, { "font-weight": 600 }));
    engines.forEach((engine, i) => svg.append(
      words(engine, left - 8, y0 + i * lane + 16, { "text-anchor": "end" }),
      draw("line", { x1: left, x2: width - right, y1: y0 + (i + 1) * lane, y2: y0 + (i + 1) * lane, class: "grid" })));
    const paths = {};
    for (const [engine, part, at, wide] of bars) {
      seen.add(part);
      const w = Math.max(0.3, (wide / us) * (width - left - right)).toFixed(2);
      paths[part] = (paths[part] ?? "") +
        `M${x(at).toFixed(2)} ${y0 + engine * lane + 3}h${w}v${lane - 6}h-${w}z`;
    }
    for (const [part, d] of Object.entries(paths))
      svg.append(draw("path", { d, fill: parts[part].colour }, draw("title", {}, parts[part].name)));
    const step = 10 ** Math.floor(Math.log10(us / (width / 200)));
    const tick = [1, 2, 5, 10, 20].map((n) => n * step).find((n) => us / n <= width / 100);
    for (let at = 0; at <= us; at += tick) {
      svg.append(draw("line", { x1: x(at), x2: x(at), y1: bottom, y2: bottom + 4, class: "axis" }));
      svg.append(words(`${+at.toPrecision(6)} \u00b5s`, x(at), bottom + 17, { "text-anchor": at ? "middle" : "start", class: "soft" }));
    }
  });
  caption(figure, "Engines over time", `busy in the whole request: ${busy}`);
  const list = keys(parts.filter((_, i) => seen.has(i)).map(({ name, colour }) => [name, colour]));
  find(".drawing", figure).replaceChildren(svg, list);
}

// ---- two sides ---------------------------------------------------------------------------------

const shownViews = () => (two ? SIDES : ["a"]).map((side) => views[side]);

const fresh = (view) => view.done.tiles === view.version && view.tiles;

async function difference() {
  if (!SIDES.every((side) => fresh(views[side]))) return;
  const versions = SIDES.map((side) => views[side].version).join();
  const found = await post("/api/compare", { a: given("a"), b: given("b") });
  if (versions !== SIDES.map((side) => views[side].version).join() || !two) return;
  if (found.refused) return hideDifference();
  find("#difference").hidden = false;
  showDifference(found);
}

function hideDifference() {
  find("#difference").hidden = true;
  find("#difference-sum").textContent = "";
}

function showDifference({ fields, costs, a_ms: a, b_ms: b }) {
  const shown = costs.filter((cost) => cost.a_ms || cost.b_ms);
  const by = (cost) => Math.abs(cost.difference_ms);
  const first = [...shown].sort((x, y) => by(y) - by(x))[0];
  const change = b - a;
  find("#difference-sum").textContent = Math.abs(change) < 1e-9
    ? `Both take ${ms(a)} ms.`
    : `B takes ${ms(Math.abs(change))} ms ${change < 0 ? "less" : "more"} than A (${ms(a)} to ` +
      `${ms(b)} ms, ${change < 0 ? "\u2212" : "+"}${ms(Math.abs((100 * change) / a))} %). ` +
      `Most changes in ${first.phase}, ${first.cause}: ${ms(first.difference_ms)} ms.`;
  const most = Math.max(...shown.map(by), 1e-12);
  const body = shown.map((cost) => {
    const d = cost.difference_ms, wide = (by(cost) / most) * 68;
    const bar = draw("svg", { viewBox: "0 0 140 12", width: 140, height: 12, "aria-hidden": "true" },
      draw("line", { x1: 70, x2: 70, y1: 0, y2: 12, class: "axis" }),
      draw("rect", { x: d < 0 ? 70 - wide : 70, y: 2, width: wide, height: 8, fill: d < 0 ? "#358b64" : "#bf2b1e" }));
    const number = (value, sign) => make("td", { class: "number" }, (sign && value > 0 ? "+" : "") + value.toFixed(3).replace("-", "\u2212"));
    return make("tr", {}, make("td", {}, cost.phase), make("td", {}, cost.cause), number(cost.a_ms),
      number(cost.b_ms), number(d, true), make("td", {}, bar));
  });
  table("#difference-costs", ["phase", "waits for", "A ms", "B ms", "B \u2212 A ms", ""], body);
  table("#difference-fields", ["field", "A", "B"],
    fields.map(({ field, a: x, b: y }) => make("tr", {}, ...[field, x, y].map((t) => make("td", {}, t)))));
}

function table(place, heads, rows) {
  const head = heads.map((text) =>
    make("th", { scope: "col", class: text.includes("ms") ? "number" : "" }, text));
  find(place).replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...rows)));
}

// ---- begin -------------------------------------------------------------------------------------

function ask() {
  layout();
  for (const view of shownViews()) changed(view.side);
}

async function begin() {
  page = await (await fetch("/api/page")).json();
  SIDES.forEach(build);
  follow();
  find("#two").addEventListener("input", (event) => {
    two = event.target.checked;
    if (two && !views.b.version) // the second side begins as the first
      for (const { name } of page.controls) find(`#b-${name}`).value = find(`#a-${name}`).value;
    ask();
  });
  find("#reset").addEventListener("click", () => {
    history.replaceState(null, "", "#");
    follow();
    views.b.version = 0;
    ask();
  });
  find("#copy").addEventListener("click", async () => {
    const copied = await navigator.clipboard.writeText(location.href).then(() => true, () => false);
    find("#copied").textContent = copied ? "copied" : "it is the address of this page";
    setTimeout(() => (find("#copied").textContent = ""), 2000);
  });
  let resized;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => shownViews().filter((view) => view.tiles).forEach(drawAll), 100);
  });
  window.addEventListener("hashchange", () => {
    follow();
    ask();
  });
  ask();
}

begin().catch(() => notice(SILENT));
