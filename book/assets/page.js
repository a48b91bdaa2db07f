/* What a page offers beside its text: the switch between light and dark, links to headings and figures, buttons that
   copy code, citations at the pointer, and regions that scroll in the keyboard's reach. Where Quarto does one of
   these itself, it is left to Quarto. */
"use strict";

(() => {
  const root = document.documentElement;
  const isQuarto = document.querySelector("meta[name=generator][content^=quarto]") !== null;

  function button(text, label, act) {
    const made = document.createElement("button");
    Object.assign(made, { type: "button", textContent: text });
    made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  }

  function permalink(target, id, what) {
    const link = document.createElement("a");
    Object.assign(link, { className: "permalink", href: `#${id}`, textContent: "#" });
    link.setAttribute("aria-label", `Link to ${what}`);
    target.append(" ", link);
  }

  for (const figure of document.querySelectorAll("[id^=fig-], [id^=tbl-]")) {
    const caption = figure.querySelector("figcaption");
    if (caption) permalink(caption, figure.id, /^\S+\s\S+?(?=:)/.exec(caption.textContent.trim())?.[0] ?? "this figure");
  }

  // a region that scrolls must be in the keyboard's reach
  function reach() {
    for (const part of document.querySelectorAll("main pre, main .table-scroll, main math[display=block]")) {
      const scrolls = part.scrollWidth > part.clientWidth + 1;
      if (!scrolls) {
        if (part.dataset.reached) for (const name of ["tabindex", "role", "aria-label"]) part.removeAttribute(name);
        continue;
      }
      part.dataset.reached = "true";
      part.tabIndex = 0;
      if (part.localName === "math") continue;
      part.setAttribute("role", "region");
      const caption = part.closest("figure, [id^=tbl-]")?.querySelector("figcaption");
      const name = caption ? /^[^:]*/.exec(caption.textContent.trim())[0] : part.localName === "pre" ? "Code" : "Table";
      part.setAttribute("aria-label", `${name}, scrolls sideways`);
    }
  }

  for (const table of document.querySelectorAll("main table")) {
    const box = document.createElement("div");
    box.className = "table-scroll";
    table.before(box);
    box.append(table);
  }
  addEventListener("resize", reach);
  reach();

  // the name of such a link must hold its text, the number of the chapter too
  for (const link of document.querySelectorAll(".pagination-link[aria-label]")) link.removeAttribute("aria-label");

  // Quarto's search fetches its index, which a page that is read as a file must not
  if (isQuarto && location.protocol === "file:")
    for (const box of document.querySelectorAll("#quarto-search")) box.style.display = "none";

  // behind what Quarto does when the page is read
  const show = () => requestAnimationFrame(() => root.classList.remove("waiting"));
  if (document.readyState === "complete") show();
  else addEventListener("load", show);

  if (isQuarto) return;

  for (const heading of document.querySelectorAll("main :is(h2, h3, h4)[id], main section[id] > :is(h2, h3, h4)")) {
    const id = heading.id || heading.parentElement.id;
    permalink(heading, id, heading.textContent.trim());
  }

  for (const code of document.querySelectorAll("main div.sourceCode > pre, main pre > code:only-child")) {
    const pre = code.closest("pre");
    if (pre.parentElement.classList.contains("with-copy") || pre.classList.contains("cell-output")) continue;
    const box = document.createElement("div");
    box.className = "with-copy";
    pre.before(box);
    const copy = button("Copy", "Copy this code", async () => {
      await navigator.clipboard.writeText(pre.textContent);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    box.append(pre, copy);
  }

  // the entry of a citation, or the text of a footnote, beside the link to it
  const note = document.createElement("div");
  note.className = "hover-note";
  note.hidden = true;
  document.body.append(note);
  const shownAt = (link) => {
    const text = link.dataset.entry || document.getElementById(link.hash.slice(1))?.textContent;
    if (!text) return;
    note.textContent = text.replace("↩︎", "").trim();
    note.hidden = false;
    const { left, bottom } = link.getBoundingClientRect();
    note.style.left = `${Math.max(8, Math.min(left, innerWidth - note.offsetWidth - 8)) + scrollX}px`;
    note.style.top = `${bottom + 6 + scrollY}px`;
  };
  for (const link of document.querySelectorAll("main .citation a[href*='#ref-'], main a.footnote-ref")) {
    for (const type of ["pointerenter", "focus"]) link.addEventListener(type, () => shownAt(link));
    for (const type of ["pointerleave", "blur"]) link.addEventListener(type, () => (note.hidden = true));
  }
  addEventListener("keydown", ({ key }) => key === "Escape" && (note.hidden = true));

  const place = document.querySelector(".theme-place");
  const dark = () => getComputedStyle(document.body).getPropertyValue("--dark").trim() === "1";
  if (place) {
    const name = () => (dark() ? "Light page" : "Dark page");
    const turn = button(name(), "", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {} // where nothing may be stored the choice holds for this page
      turn.textContent = name();
    });
    turn.removeAttribute("aria-label");
    turn.className = "theme-switch";
    place.append(turn);
  }
})();
