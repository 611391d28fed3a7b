(() => {
  "use strict";
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const specs = read("chart-specs"), twin = read("dark-colours");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const views = new Map(), turns = new Map();
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;

  // Vega calls this with the datum's tooltip object; every string goes in as text.
  function tell(handler, event, item, value) {
    tip.hidden = value == null || value === "";
    if (tip.hidden) return;
    tip.replaceChildren(...Object.entries(value).map(([key, said]) => {
      const line = document.createElement("div"), word = document.createElement("span");
      word.textContent = key + "  ";
      line.append(word, String(said));
      return line;
    }));
    const x = event.clientX ?? event.changedTouches?.[0]?.clientX ?? 0, y = event.clientY ?? event.changedTouches?.[0]?.clientY ?? 0;
    const box = tip.getBoundingClientRect(), wide = document.documentElement.clientWidth;
    tip.style.left = Math.max(4, Math.min(x + 14, wide - box.width - 6)) + "px";
    tip.style.top = (y + 16 + box.height > innerHeight ? y - box.height - 12 : y + 16) + "px";
  }

  function lit(value) {
    if (typeof value === "string") return value.replace(/#[0-9a-f]{6}\b/g, colour => twin[colour] ?? colour);
    if (Array.isArray(value)) return value.map(lit);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, key === "datasets" ? inner : lit(inner)]));
    return value;
  }

  async function draw(box) {
    const name = box.dataset.chart, turn = Symbol(name);
    turns.set(box, turn);
    const spec = dark.matches ? lit(specs[name]) : specs[name];
    const made = await vegaEmbed(box, spec, {mode: "vega-lite", renderer: "svg", actions: false, tooltip: tell});
    if (turns.get(box) !== turn) return made.finalize();
    views.get(box)?.finalize();
    views.set(box, made);
    await made.view.resize().runAsync();  // a second layout: the first sets the room for end labels at the width before fitting
    box.dataset.drawn = name;
  }

  function failed(box, error) {
    const said = document.createElement("p");
    said.className = "chart-failed";
    said.textContent = "This chart could not be drawn (" + error.message + "); its numbers are in the tables.";
    box.replaceChildren(said);
    console.error(error);
  }
  const drawn = box => draw(box).catch(error => failed(box, error));

  function choose(measure) {
    for (const button of document.querySelectorAll("button[data-measure]")) button.setAttribute("aria-pressed", String(button.dataset.measure === measure));
    for (const part of document.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== measure;
    const box = document.getElementById("curve");
    if (!box) return;
    box.dataset.chart = "depth_curve_" + measure;
    box.hidden = !(box.dataset.chart in specs);
    if (!box.hidden) drawn(box);
  }

  for (const button of document.querySelectorAll("button[data-measure]")) button.addEventListener("click", () => choose(button.dataset.measure));
  // What lies in a closed part has no width to be drawn in; it is drawn when the part opens.
  const shut = box => box.closest("details:not([open])") !== null;
  const all = () => document.querySelectorAll("[data-chart]:not([hidden])").forEach(box => { if (!shut(box)) drawn(box); });
  document.addEventListener("toggle", event => {
    if (event.target.open) event.target.querySelectorAll("[data-chart]:not([hidden])").forEach(box => { if (!shut(box)) drawn(box); });
  }, true);
  dark.addEventListener("change", all);
  addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});
  document.addEventListener("pointerdown", event => { if (!event.target.closest?.(".chart")) tip.hidden = true; });
  all();
})();
