/* What a reader would see amiss on a drawn page: a list of faults. */
(() => {
  const faults = [];
  const name = (chart) => chart.closest("[id^=fig-]")?.id ?? "a chart";
  const room = document.documentElement.clientWidth;

  if (document.documentElement.classList.contains("waiting")) faults.push("the page is not shown when its scripts have run");
  if (document.documentElement.scrollWidth > room + 1) {
    const wide = [...document.querySelectorAll("main *")]
      .filter((part) => part.getBoundingClientRect().right > room + 1 && !part.closest(".table-scroll, pre, math, svg"))
      .map((part) => part.localName + (part.id && `#${part.id}`) + (part.className && `.${part.className}`));
    faults.push(`the page is wider than its window: ${wide.slice(0, 3).join(", ") || "outside the text"}`);
  }

  const shown = (rect) => rect.width > 0.5 && rect.height > 0.5;
  const upright = (text) => {
    const angle = /rotate\((-?[\d.]+)/.exec(text.getAttribute("transform") ?? "")?.[1] ?? 0;
    return angle % 90 === 0;
  };

  for (const chart of document.querySelectorAll(".vega-chart")) {
    const svg = chart.querySelector("svg");
    const marks = svg?.querySelectorAll(".role-mark :is(path, text, line, image)") ?? [];
    if (!marks.length) {
      faults.push(`${name(chart)} shows no mark`);
      continue;
    }
    const frame = svg.getBoundingClientRect();
    const place = chart.getBoundingClientRect();
    if (frame.width > place.width + 1)
      faults.push(`${name(chart)} is wider than its place: ${Math.round(frame.width)} of ${Math.round(place.width)} px`);

    const texts = [...svg.querySelectorAll("text")].filter((text) => {
      const style = getComputedStyle(text);
      return text.textContent.trim() && style.opacity > 0 && style.fill !== "none" && shown(text.getBoundingClientRect());
    });
    for (const text of texts) {
      const rect = text.getBoundingClientRect();
      const out = Math.max(frame.left - rect.left, rect.right - frame.right, frame.top - rect.top, rect.bottom - frame.bottom);
      if (out > 3) faults.push(`${name(chart)}: ${text.textContent} is cut off`);
      if (/…$/.test(text.textContent)) faults.push(`${name(chart)}: ${text.textContent} is cut short`);
      if (/\b(null|undefined|NaN)\b/.test(text.textContent)) faults.push(`${name(chart)}: a text is ${text.textContent}`);
    }
    const flat = texts.filter(upright);
    const collisions = [];
    flat.forEach((text, place) => {
      const one = text.getBoundingClientRect();
      for (const next of flat.slice(place + 1)) {
        const two = next.getBoundingClientRect();
        const x = Math.min(one.right, two.right) - Math.max(one.left, two.left);
        const y = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
        // the boxes of two lines of letters reach into one another by a little
        const sameAxis = text.parentNode === next.parentNode && text.closest(".role-axis-label");
        if (x > (sameAxis ? -2 : 2) && y > 4) collisions.push(`"${text.textContent}" and "${next.textContent}"`);
      }
    });
    if (collisions.length) faults.push(`${name(chart)}: texts overlap: ${collisions.slice(0, 3).join("; ")}`);

    const paper = getComputedStyle(document.body).getPropertyValue("--paper").trim();
    for (const path of svg.querySelectorAll(".mark-symbol.role-mark path")) {
      const { fill, stroke } = { fill: path.getAttribute("fill"), stroke: path.getAttribute("stroke") };
      const plain = [null, "none", "transparent", "#ffffff", paper, stroke];
      if (stroke && !["none", "transparent"].includes(stroke) && !plain.includes(fill)) {
        faults.push(`${name(chart)}: a point is filled with ${fill} in a ring of ${stroke}`);
        break;
      }
    }
  }

  for (const box of document.querySelectorAll(".controls label, .files button, .theme-switch")) {
    const { width, height } = box.getBoundingClientRect();
    if (Math.min(width, height) < 24) faults.push(`a target of ${Math.round(width)} × ${Math.round(height)} px`);
  }
  return faults;
})();
