(() => {
  "use strict";
  const {tokens, features, floor, descending} = JSON.parse(document.getElementById("features").textContent);
  const list = document.getElementById("list"), detail = document.getElementById("detail"), told = document.getElementById("count");
  const search = document.getElementById("search"), scope = document.getElementById("scope"), sort = document.getElementById("sort");
  const lines = [...list.children], buttons = lines.map(line => line.firstElementChild), more = told.textContent.split(";")[1] || "";
  const texts = new Map();
  let chosen = -1, order = features.map((_, i) => i);

  // Every string goes in as text.
  function made(tag, name, ...inside) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...inside);
    return element;
  }
  const token = text => made("bdi", "tok", text);
  const shown = text => text.replace(/\r?\n/g, "↵");

  // What is searched of a feature, put together once it is asked for.
  function text(i) {
    if (!texts.has(i)) {
      const {contexts, ends} = features[i];
      const found = {
        fires: contexts.map(c => tokens[c.t[c.m]]).join("\n"),
        contexts: contexts.map(c => c.t.map(t => tokens[t]).join("")).join("\n"),
        tokens: ends.map(end => (end || []).map(([said]) => said).join("\n")).join("\n"),
      };
      for (const key in found) found[key] = found[key].toLowerCase();
      texts.set(i, {...found, all: Object.values(found).join("\n")});
    }
    return texts.get(i);
  }

  function fits(i, asked, where) {
    if (!asked) return true;
    if (String(features[i].n) === asked.replace(/^#/, "")) return true;
    return text(i)[where].includes(asked);
  }

  function ordered(key) {
    const value = i => features[i].by[key], turn = descending[key] ? -1 : 1;
    return features.map((_, i) => i).sort((a, b) => {
      if (value(a) == null || value(b) == null) return (value(a) == null) - (value(b) == null) || a - b;
      return turn * (value(a) - value(b)) || a - b;
    });
  }

  function arrange() {
    const key = sort.value;
    order = ordered(key);
    list.append(...order.map(i => lines[i]));
    buttons.forEach((button, i) => { button.querySelector(".fig").textContent = features[i].said[key]; });
    filter();
  }

  function filter() {
    const asked = search.value.trim().toLowerCase(), where = scope.value;
    let kept = 0;
    features.forEach((_, i) => { kept += !(lines[i].hidden = !fits(i, asked, where)); });
    const by = sort.selectedOptions[0].textContent, beside = floor && /cosine/.test(by) ? `, floor ${floor}` : "";
    told.textContent = (asked ? `${kept} of ${features.length}` : `${features.length}`) + ` features by ${by}${beside}` + (more && !asked ? ";" + more : "");
    list.scrollTop = 0;
  }

  function facts(feature) {
    const {said} = feature, rows = [["explained share", said.explained], ["density", said.density], ["maximum", said.max], ["mean where it fires", feature.mean]];
    return made("dl", "facts", ...rows.map(([name, value]) => made("div", "", made("dt", "", name), made("dd", "", value))));
  }

  function table(heads, rows) {
    const cell = (tag, value, at) => made(tag, at ? "n" : "", tag === "th" ? value : made("bdi", "", value));
    const head = made("thead", "", made("tr", "", ...heads.map((name, at) => cell("th", name, at))));
    return made("div", "scroll", made("table", "", head, made("tbody", "", ...rows.map(row => made("tr", "", ...row.map((value, at) => cell("td", value, at)))))));
  }

  function ends(title, rows) {
    const items = rows.map(([said, score]) => made("li", "", token(said), made("span", "score", score)));
    return made("div", "", made("h3", "", title), made("ul", "tokens", ...items));
  }

  function context(feature, found) {
    const quote = made("blockquote", "context");
    quote.dir = "auto";
    found.t.forEach((number, at) => {
      const value = found.a[at], part = made("span", value == null ? "no-row" : "", shown(tokens[number]));
      if (value > 0) part.classList.add("a" + Math.max(1, Math.min(4, Math.ceil(4 * value / feature.top))));
      if (value != null) part.title = String(value);
      if (at === found.m) part.classList.add("peak");
      quote.append(part);
    });
    const set = found.set ? ` · ${found.set}` : "";
    return made("li", "", quote, made("p", "note", `${found.v} · ${found.where}${set}`));
  }

  function shades() {
    const steps = ["to ¼", "to ½", "to ¾", "more"].map((said, at) => made("span", "a" + (at + 1), said));
    return made("p", "shades", "activation, of the maximum:", ...steps, made("span", "peak", "strongest here"), made("span", "no-row", "grey: not among the tokens read"));
  }

  function choose(i, move) {
    if (chosen >= 0) buttons[chosen].removeAttribute("aria-current");
    chosen = i;
    buttons[i].setAttribute("aria-current", "true");
    const feature = features[i], parts = [made("h2", "", `Feature ${feature.n}`), facts(feature)];
    if (feature.near.length) {
      const rows = feature.near.map(([name, latent, cosine, chance]) => [`${latent} of ${name}`, cosine, chance]);
      parts.push(made("h3", "", "Nearest in the base"), table(["feature", "cosine", "chance, 1 in 100"], rows));
    }
    if (feature.ends[0]) parts.push(made("div", "two", ends("Promotes", feature.ends[0]), ends("Suppresses", feature.ends[1] || [])));
    if (feature.sets.length > 1) parts.push(made("h3", "", "Fires on"), table(["texts", "density", "documents"], feature.sets));
    if (feature.contexts.length) parts.push(made("h3", "", "Where it fires most strongly"), shades(), made("ol", "contexts", ...feature.contexts.map(found => context(feature, found))));
    detail.replaceChildren(...parts);
    if (!move) return;
    history.replaceState(null, "", `#feature-${feature.n}`);
    if (matchMedia("(max-width: 900px)").matches) detail.scrollIntoView({block: "start"});
    else if (detail.getBoundingClientRect().top < 0) document.querySelector(".browse").scrollIntoView({block: "start"});
  }

  function named() {
    const number = /^#feature-(\d+)$/.exec(location.hash)?.[1];
    return features.findIndex(feature => String(feature.n) === number);
  }

  list.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (button) choose(Number(button.dataset.i), true);
  });
  list.addEventListener("keydown", event => {
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!step) return;
    const open = order.filter(i => !lines[i].hidden), next = open[open.indexOf(Number(document.activeElement.dataset.i)) + step];
    event.preventDefault();
    if (next === undefined) return;
    buttons[next].focus();
    choose(next, true);
  });
  document.querySelector(".ask").addEventListener("submit", event => event.preventDefault());
  for (const kind of ["input", "change"]) {
    search.addEventListener(kind, filter);
    scope.addEventListener(kind, filter);
    sort.addEventListener(kind, arrange);
  }
  addEventListener("hashchange", () => { if (named() >= 0) choose(named(), false); });
  if (features.length) {
    arrange();
    choose(Math.max(named(), 0), false);
    if (named() >= 0) buttons[chosen].scrollIntoView({block: "nearest"});
  }
})();
