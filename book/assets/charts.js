/* Draws the charts of a page: each when it comes near the viewport, in the colors of the page, as wide as there is
   room. A chart is `.vega-chart`: the place of the picture, and its Vega-Lite specification as JSON. */
"use strict";

(() => {
  const NARROW = 600; // px: below, panels stand one above the other
  const LETTER = 6.4; // px: width of a letter of a label, on average
  const LEAST = 70; // px: the least width of a panel
  const NEAR = "500px"; // how far from the viewport a chart is drawn

  // Colors that the dark page has in the place of a light one's. Those of models serve both.
  const DARK = {
    "#1b2a49": "#e4eafb", "#3b528b": "#93aaf0", "#21908d": "#2fb5b1", "#d1495b": "#ec6a7b",
    "#ffffff": "#15181c", "#000000": "#eceff2", "#444444": "#b4bbc2", "#555555": "#b4bbc2",
    "#666666": "#a3abb3", "#888888": "#969ea6", "#cccccc": "#4b525a", "#b22222": "#ff8078",
  };

  const style = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
  const isDark = () => style("--dark") === "1";
  const charts = new Map(); // element → its state

  // --- the specification ---------------------------------------------------------------

  const LIGHT_CONFIG = { ink: "#22262a", soft: "#5a626a", faint: "#e3e6e9" };
  const DARK_CONFIG = { ink: "#eceff2", soft: "#b4bbc2", faint: "#343a41" };

  const gradient = (room, length) => Math.round(Math.min(length, room - 130));

  function config(dark, room) {
    const { ink, soft, faint } = dark ? DARK_CONFIG : LIGHT_CONFIG;
    const font = getComputedStyle(document.body).fontFamily;
    const text = { labelColor: soft, titleColor: ink, labelFont: font, titleFont: font };
    const layout = { top: { anchor: "start", direction: "vertical", margin: 6 } };
    return {
      font, aria: false, background: "transparent",
      axis: { ...text, labelSeparation: 5, gridColor: faint, domainColor: soft, tickColor: soft },
      legend: { ...text, layout, gradientLength: gradient(room, 200), symbolBaseFillColor: soft, symbolBaseStrokeColor: soft },
      header: { labelColor: ink, labelFont: font },
      title: { color: ink, font },
      text: { font, color: ink },
      mark: { aria: false },
    };
  }

  function merged(base, extra) {
    const found = { ...base };
    for (const [key, value] of Object.entries(extra)) {
      const both = value && base[key] && typeof value === "object" && typeof base[key] === "object";
      found[key] = both ? merged(base[key], value) : value;
    }
    return found;
  }

  // Calls `act` on every object of a specification but its data, inner ones last.
  function walk(part, act) {
    if (Array.isArray(part)) part.forEach((item) => walk(item, act));
    else if (part && typeof part === "object") {
      act(part);
      for (const [key, value] of Object.entries(part)) if (key !== "datasets") walk(value, act);
    }
  }

  // The same in the colors of a theme: each color is spelled with six digits in the specification.
  function themed(spec, dark, room) {
    const { datasets, ...rest } = spec;
    const recolored = (key, value) => (dark && DARK[value]) || value;
    const copy = JSON.parse(JSON.stringify(rest), recolored);
    copy.config = merged(copy.config ?? {}, config(dark, room));
    walk(copy, (part) => {
      // the end of the scheme that cannot be seen on this page is for cells alone, which bear their own domain
      if (part.scheme === "viridis" && !part.domain)
        part.scheme = { name: "viridis", extent: dark ? [0.25, 1] : [0, 0.9] };
    });
    return { ...copy, datasets };
  }

  const fields = (definition) => definition?.sort ?? [];
  const isSquare = (part) => typeof part.width === "number" && part.width === part.height;

  // Panels one above the other, where there is no room for them side by side.
  function stacked(spec) {
    walk(spec, (part) => {
      if (part.hconcat) {
        part.vconcat = part.hconcat;
        delete part.hconcat;
      }
      if (part.concat) part.columns = 1;
      const { row, column } = part.facet ?? {};
      if (column) {
        const one = { ...column, header: { ...column.header, labels: true, orient: "top", labelAngle: 0 } };
        if (row && fields(row).length) {
          const names = [row.field, column.field];
          one.field = "panel";
          one.sort = row.sort.flatMap((above) => column.sort.map((beside) => `${above}: ${beside}`));
          const calculate = `datum[${JSON.stringify(names[0])}] + ': ' + datum[${JSON.stringify(names[1])}]`;
          part.transform = [...(part.transform ?? []), { calculate, as: "panel" }];
        }
        part.facet = one;
      }
      if (part.facet?.field) part.columns = 1;
    });
  }

  // Lines of at most so many letters, none between k = and 2; a longer word is broken, at a hyphen if it has one.
  const pattern = (n) => `(.{1,${n}})(?:(?<!=)\\s+(?!=)|$)|(.{0,${n - 1}}-)|(\\S{${n}})`;
  const broken = (name, n) => String(name).replace(new RegExp(pattern(n), "g"), "$1$2$3\n").trim().split("\n");

  // The same as an expression on a label or another text, with empty lines above where others have more.
  const lines = (n, most = 1, of = "datum.label") => {
    const text = `trim(replace(${of}, regexp('${pattern(n).replaceAll("\\", "\\\\")}', 'g'), '$1$2$3\\n'))`;
    const above = `slice('${"\\n".repeat(most)}', 0, max(0, ${most} - length(split(${text}, '\\n'))))`;
    return `split(${most > 1 ? `${above} + ` : ""}${text}, '\\n')`;
  };

  // A title in such lines: a text, several, or an expression, of which a list begins with a name.
  function titled(text, n) {
    if (!text.expr) return [text].flat().flatMap((line) => broken(line, n));
    const [list, name] = text.expr.match(/^\[("(?:[^"\\]|\\.)*")/) ?? [];
    if (!list) return { expr: lines(n, 1, text.expr) };
    const parts = broken(JSON.parse(name), n).map((line) => JSON.stringify(line));
    return { expr: `[${parts.join(", ")}${text.expr.slice(list.length)}` };
  }

  function wrapped(spec, room, valuesOf) {
    let beside = 0; // px that the names of rows take
    let most = 1; // lines that the longest of them has
    const letters = room < NARROW ? 17 : 30;
    walk(spec, ({ y }) => {
      if (y?.type !== "nominal" || y.axis === null) return;
      beside = room < NARROW ? 120 : 180;
      y.axis = { ...y.axis, labelLimit: 0, labelExpr: lines(letters) };
      most = Math.max(most, ...valuesOf(y.field).map((name) => broken(name, letters).length));
    });
    if (beside && most > 1)
      walk(spec, (part) => part.height?.step && (part.height = { step: Math.max(part.height.step, 12 * most + 4) }));
    walk(spec, (part) => {
      if (part.title?.text) {
        const length = room < NARROW ? room - 20 : Math.min(part.width ?? room, room - 20);
        part.title.text = titled(part.title.text, Math.floor(length / (1.18 * LETTER)));
      }
      if (part.legend?.gradientLength) part.legend.gradientLength = gradient(room, part.legend.gradientLength);
      for (const header of part.facet ? [part.facet, part.facet.row, part.facet.column] : []) {
        if (!header?.field || header.header?.labels === false) continue;
        const inner = part.spec;
        const aside = header.header?.orient === "left";
        const start = header.header?.labelAnchor === "start" || part.columns === 1;
        // one that starts at the left edge of its panel may reach beyond the right one
        const free = room < NARROW ? room - beside - 60 : Math.max(inner?.width, room - beside - 60);
        const length = aside ? inner?.height : start ? free : inner?.width;
        if (typeof length !== "number") continue;
        const letters = Math.max(12, Math.floor(length / (1.18 * LETTER)));
        // panels that stand beside one another begin at one height, whatever lines their names have
        const most = aside ? 1 : Math.max(1, ...valuesOf(header.field).map((name) => broken(name, letters).length));
        header.header = { ...header.header, labelLimit: 0, labelLineHeight: 14, labelExpr: lines(letters, most) };
      }
      const title = typeof part.title === "string" && part.field && part.scale !== undefined ? part.title : "";
      if (title && part.axis === undefined && title.length > 34) part.title = halves(title);
      const isList = part.type === "nominal" || part.type === "ordinal";
      const isLegend = isList && part.legend !== null && !("axis" in part) && !("sort" in part);
      const names = isLegend && part.field ? (part.scale?.domain ?? valuesOf(part.field)) : [];
      if (names.length) {
        const longest = Math.max(...names.map((name) => String(name).length));
        const most = Math.max(1, Math.floor((room - Math.max(beside, 40)) / (longest * LETTER + 34)));
        part.legend = { ...part.legend, labelLimit: 0, columns: Math.min(most, part.legend?.columns ?? names.length) };
        const letters = Math.floor((room - Math.max(beside, 70) - 34) / LETTER);
        if (longest > letters && !part.legend.labelExpr) part.legend.labelExpr = lines(letters);
      }
      const isShade = part.type === "quantitative" && part.scale?.scheme && part.legend !== null;
      if (isShade) part.legend = { columns: Math.max(1, Math.floor((room - 60) / 64)), ...part.legend };
    });
  }

  function halves(title) {
    const middle = title.indexOf(" ", title.length / 2);
    return middle < 0 ? title : [title.slice(0, middle), title.slice(middle + 1)];
  }

  // Panels that stand beside one another.
  function across(spec) {
    if (spec.hconcat) return spec.hconcat.reduce((sum, part) => sum + across(part), 0);
    if (spec.vconcat) return Math.max(...spec.vconcat.map(across));
    if (spec.concat) return Math.min(spec.concat.length, spec.columns ?? Infinity) * across(spec.concat[0]);
    if (!spec.facet) return 1;
    const named = spec.facet.field ? spec.facet : spec.facet.column;
    const many = fields(named).length || 1;
    return Math.min(many, spec.facet.field ? (spec.columns ?? many) : many);
  }

  // --- one chart -----------------------------------------------------------------------

  function controls(state) {
    const box = document.createElement("div");
    box.className = "controls";
    for (const param of state.spec.params ?? []) {
      if (!param.bind?.options) continue;
      const { options, name = param.name } = param.bind;
      state.values[param.name] = param.value;
      const set = (value) => {
        state.values[param.name] = value;
        state.say?.();
        if (state.drawn) enqueue(() => state.view.signal(param.name, value).resize().runAsync().then(() => fit(state)), soon);
      };
      const label = document.createElement("label");
      label.append(name.trim().replace(/ =$/, ""), " ");
      label.append(...(options.every(Number.isFinite) ? slider(options, param, set) : menu(options, param, set)));
      box.append(label);
    }
    if (!box.childElementCount) return null;
    const note = document.createElement("span");
    note.className = "note";
    note.setAttribute("role", "status");
    box.append(note);
    state.say = () => (note.textContent = missing(state));
    return box;
  }

  // The positions of a slider are those of the values, which need not be at equal distances.
  function slider(options, param, set) {
    const input = document.createElement("input");
    const output = document.createElement("output");
    Object.assign(input, { type: "range", min: 0, max: options.length - 1, step: 1 });
    input.value = options.indexOf(param.value);
    input.dataset.param = param.name;
    const show = () => {
      output.textContent = options[input.value];
      input.setAttribute("aria-valuetext", options[input.value]);
    };
    input.addEventListener("input", () => (show(), set(options[input.value])));
    show();
    return [input, output];
  }

  function menu(options, param, set) {
    const select = document.createElement("select");
    select.append(...options.map((option) => new Option(option, option, false, option === param.value)));
    select.dataset.param = param.name;
    select.addEventListener("change", () => set(select.value));
    return [select];
  }

  // Which models have nothing at the value that a control shows: their panel is empty or absent, and this says why.
  function missing(state) {
    for (const [name, value] of Object.entries(state.values)) {
      const column = name.replace("shown_", "");
      if (column === "model_title") continue;
      for (const rows of state.tables()) {
        if (!rows.length || !(column in rows[0]) || !("model_title" in rows[0])) continue;
        const here = new Set(rows.filter((row) => row[column] === String(value)).map((row) => row.model_title));
        const absent = new Set(rows.map((row) => row.model_title).filter((title) => !here.has(title)));
        const titles = { shuffle_level: "S =", k: "k =" };
        if (absent.size) return `Nothing at ${titles[column] ?? column} ${value}: ${[...absent].join(", ")}.`;
      }
    }
    return "";
  }

  // Makes panels narrower until the chart fits its place and, where they are stacked, as wide as that.
  async function fit(state) {
    const { view, arranged, place } = state;
    for (let round = 0; round < 5; round++) {
      const svg = place.querySelector("svg");
      const excess = svg.getBoundingClientRect().width - place.clientWidth;
      if (!place.clientWidth || (excess < 0.5 && (excess > -2 || !state.narrow))) return;
      const change = excess / across(arranged);
      let moved = false;
      for (const [name, [width, square]] of Object.entries(state.sizes)) {
        const now = Math.max(LEAST, Math.floor(width - change));
        moved ||= now !== width;
        state.sizes[name] = [now, square];
        view.signal(name, now);
        if (square) view.signal(square, now);
      }
      if (!moved) return;
      await view.resize().runAsync();
    }
  }

  // The signals that hold the widths of panels, and of squares the height with it.
  function sizes(compiled, spec) {
    let square = false;
    walk(spec, (part) => (square ||= isSquare(part)));
    const values = Object.fromEntries((compiled.signals ?? []).map(({ name, value }) => [name, value]));
    for (const name of ["width", "height"]) if (typeof compiled[name] === "number") values[name] = compiled[name];
    const names = Object.keys(values).filter((name) => /width$/i.test(name) && typeof values[name] === "number");
    const height = (name) => name.replace(/width$/, "height").replace(/Width$/, "Height");
    return Object.fromEntries(
      names.map((name) => [name, [values[name], square && height(name) in values ? height(name) : ""]]),
    );
  }

  function arrange(state, dark, room) {
    const spec = themed(state.spec, dark, room);
    const copy = JSON.parse(JSON.stringify({ ...spec, datasets: undefined }));
    if (room < NARROW) stacked(copy);
    wrapped(copy, room, (field) => [...new Set(state.tables().flat().map((row) => row[field]).filter(Boolean))]);
    for (const param of copy.params ?? []) if (param.bind?.options) delete param.bind;
    const params = (copy.params ?? []).map((p) => (p.name in state.values ? { ...p, value: state.values[p.name] } : p));
    return { ...copy, ...(params.length ? { params } : {}), datasets: spec.datasets };
  }

  // A tooltip of what is nearest to the pointer looks for names in the cell about the point, not in the point.
  function patch(compiled) {
    walk(compiled, (part) => {
      const tooltip = part.isVoronoi && part.tooltip;
      if (tooltip?.signal) tooltip.signal = tooltip.signal.replace(/(?<!\.)\bdatum\[/g, "datum.datum[");
    });
    return compiled;
  }

  async function draw(state) {
    const { place } = state;
    const room = place.clientWidth || NARROW;
    state.view?.finalize();
    state.narrow = room < NARROW;
    const dark = isDark();
    state.arranged = arrange(state, dark, room);
    const tooltip = { theme: dark ? "dark" : "light" };
    const options = { actions: false, renderer: "svg", mode: "vega-lite", tooltip, patch };
    const { view, vgSpec } = await vegaEmbed(place, state.arranged, options);
    Object.assign(state, { view, vgSpec, drawn: true, sizes: sizes(vgSpec, state.arranged) });
    await fit(state);
    state.say?.();
    place.style.minHeight = "";
    place.parentElement.dataset.drawn = "true";
  }

  // The height that a chart will have, more or less: what follows it stays in its place.
  function height(part, room) {
    const sum = (parts) => parts.reduce((total, one) => total + height(one, room), 0);
    const narrow = room < NARROW;
    if (part.vconcat) return sum(part.vconcat);
    if (part.hconcat) return narrow ? sum(part.hconcat) : Math.max(...part.hconcat.map((one) => height(one, room)));
    if (part.concat) return narrow ? sum(part.concat) : (sum(part.concat) / across(part));
    if (part.facet) {
      const { row, column } = part.facet;
      const many = row || column ? (fields(row).length || 1) * (narrow ? fields(column).length || 1 : 1)
        : fields(part.facet).length / (narrow ? 1 : Math.min(part.columns ?? 1, fields(part.facet).length || 1));
      return Math.ceil(many) * (height(part.spec, room) + 25);
    }
    return (part.height?.step ? 12 * part.height.step : part.height ?? 220) + 45;
  }

  // --- files ---------------------------------------------------------------------------

  function rowsOf(text) {
    const [head, ...rows] = cells(text);
    return rows.map((row) => Object.fromEntries(head.map((name, place) => [name, row[place]])));
  }

  // Cells of a text of comma-separated values, quoted ones among them.
  function cells(text) {
    const rows = [[]];
    for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^,\n]*))(,|\n|$)/g)) {
      rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
      if (end === "\n") rows.push([]);
      if (!end) break;
    }
    if (rows.at(-1).length < 2 && !rows.at(-1)[0]) rows.pop();
    return rows;
  }

  // Units stand in the titles of axes and tooltips, as "loss (nats)"; the header of the file gets them.
  function units(spec) {
    const found = {};
    walk({ ...spec, datasets: undefined }, ({ field, title }) => {
      const unit = typeof title === "string" && /\((nats|s|degrees|[kMG]?B)\)$/.exec(title);
      if (field && unit) found[field] = unit[1];
    });
    return found;
  }

  function tables(state) {
    const unit = units(state.spec);
    return Object.values(state.spec.datasets ?? {}).map((text) => {
      const [head, ...rows] = text.split("\n");
      return [head.split(",").map((name) => (unit[name] ? `${name} (${unit[name]})` : name)).join(","), ...rows];
    });
  }

  function save(name, content, type) {
    const link = document.createElement("a");
    link.href = content.startsWith("data:") ? content : URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
  }

  function nameOf(chart) {
    return chart.closest("[id^=fig-]")?.id ?? `figure-${[...charts.keys()].indexOf(chart) + 1}`;
  }

  // A picture is in light colors and of its full width, whatever the page is.
  async function picture(state, kind) {
    const spec = arrange(state, false, 720);
    spec.config.background = "#ffffff";
    const place = document.createElement("div");
    const { view } = await vegaEmbed(place, spec, { actions: false, renderer: "svg" });
    const made = await (kind === "svg" ? view.toSVG() : view.toImageURL("png", 3));
    view.finalize();
    return made;
  }

  function files(chart, state) {
    const box = document.createElement("div");
    box.className = "files";
    const button = (text, what, act) => {
      const made = document.createElement("button");
      Object.assign(made, { type: "button", textContent: text });
      made.setAttribute("aria-label", `${what} of this figure`);
      made.addEventListener("click", act);
      box.append(made);
    };
    button("Data", "Data as CSV", () => {
      const found = {}; // tables of the same columns are one file
      for (const [head, ...rows] of tables(state)) (found[head] ??= []).push(...rows.filter(Boolean));
      Object.entries(found).forEach(([head, rows], place, { length }) => {
        const end = length > 1 ? `-${place + 1}` : "";
        save(`${nameOf(chart)}${end}.csv`, [head, ...rows, ""].join("\n"), "text/csv");
      });
    });
    for (const kind of ["svg", "png"])
      button(kind.toUpperCase(), `Picture as ${kind.toUpperCase()}`, async () => {
        save(`${nameOf(chart)}.${kind}`, await picture(state, kind), "image/svg+xml");
      });
    return box;
  }

  // --- the page ------------------------------------------------------------------------

  let queue = Promise.resolve();
  const idle = window.requestIdleCallback ?? ((act) => setTimeout(act, 0));
  // what a reader waits for: a browser takes itself for busy for a while after each key, and would be idle late
  const soon = (act) => setTimeout(act, 0);
  // one after another, so that the page answers between them
  const enqueue = (act, when = idle) =>
    (queue = queue.then(() => new Promise((done) => when(() => act().catch(console.error).then(done), { timeout: 300 }))));

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        observer.unobserve(target);
        enqueue(() => draw(charts.get(target)));
      }
    },
    { rootMargin: NEAR },
  );

  for (const chart of document.querySelectorAll(".vega-chart")) {
    const place = chart.querySelector(".plot");
    const spec = JSON.parse(chart.querySelector("script").textContent);
    const { words = [] } = spec.usermeta ?? {};
    for (const [name, text] of Object.entries(spec.datasets ?? {}))
      spec.datasets[name] = text.replace(/[\ue000-\uf8ff]/g, (code) => words[code.charCodeAt() - 0xe000] ?? code);
    const state = (chart.state = { place, spec, values: {}, drawn: false });
    let parsed = null;
    state.tables = () => (parsed ??= Object.values(spec.datasets ?? {}).map(rowsOf));
    charts.set(chart, state);
    place.style.minHeight = `${Math.round(height(spec, place.clientWidth || 700) + 60)}px`;
    const below = controls(state);
    if (below) chart.append(below);
    chart.append(files(chart, state));
    observer.observe(chart);
  }

  // Draws all that is not drawn yet: for printing, and for whoever checks a page.
  window.drawCharts = () => {
    for (const [chart, state] of charts) {
      if (state.drawn) continue;
      observer.unobserve(chart);
      enqueue(() => draw(state));
    }
    return queue;
  };

  const again = () => {
    for (const state of charts.values()) if (state.drawn) enqueue(() => draw(state));
    return queue;
  };

  let last = isDark();
  const follow = () => {
    if (isDark() === last) return;
    last = isDark();
    again();
  };
  const watcher = new MutationObserver(follow);
  watcher.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "class"] });
  watcher.observe(document.body, { attributes: true, attributeFilter: ["class"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", follow);

  let width = innerWidth;
  let timer;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (innerWidth !== width) again();
      width = innerWidth;
    }, 150);
  });
  addEventListener("beforeprint", window.drawCharts);
})();
