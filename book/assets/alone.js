/* In a notebook that is run by itself nothing resolves what leads to other figures and chapters of the book: here words
   take the place of @fig-name, @sec-name and citations, and the marks behind headings go. */
"use strict";

(() => {
  const KINDS = { fig: "figure", tbl: "table", sec: "section", eq: "equation" };
  const CODE = "pre, code, script, style, textarea, [contenteditable], .cm-editor";

  const spelled = (name) => name.replace(/-/g, " ").replace(/(\D)(\d{4})$/, "$1 $2").replace(/^./, (one) => one.toUpperCase());

  // `first`: the text begins its paragraph, and what stands at its beginning a sentence.
  function plain(text, first) {
    return text
      .replace(/\s*\{#(fig|tbl|sec|eq)-[^}]*\}/g, "")
      .replace(/(^\s*|\.\s+|)(?:\[-?)?@(fig|tbl|sec|eq)-([\w-]*\w)\]?/g, (_, before, kind, name, place) => {
        const starts = (first && place === 0) || before.includes(".");
        return `${before}${starts ? "The" : "the"} ${KINDS[kind]} “${name.replace(/-/g, " ")}”`;
      })
      .replace(/\[(@[^\]]+)\]/g, (_, keys) => `(${keys.replace(/@([\w-]+)/g, (__, key) => spelled(key))})`)
      .replace(/(^|\s)@([a-z]+\d{0,4})\b/g, (_, before, key) => before + spelled(key));
  }

  function rewrite(root) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    for (let node = root instanceof Text ? root : walker.nextNode(); node; node = walker.nextNode()) {
      if (!/@[a-z]|\{#/.test(node.data) || node.parentElement?.closest(CODE)) continue;
      const words = plain(node.data, !node.previousSibling);
      if (words !== node.data) node.data = words;
    }
  }

  rewrite(document.body);
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const node of addedNodes) rewrite(node);
  }).observe(document.body, { childList: true, subtree: true });
})();
