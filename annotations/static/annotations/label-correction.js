/* The better answer: where it starts from, its citations, and what the server would refuse in it. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.correction = (core) => {
  const MAX = 20_000;
  const box = () => core.form().querySelector("#lb-correction");

  function edit() {
    if (core.choice() !== "bad" && core.choice() !== "decline") core.choose("bad");
    core.arm(false);
    if (!box().value.trim()) box().value = core.form().dataset.response;
    box().focus();
    box().setSelectionRange(box().value.length, box().value.length);
    box().scrollIntoView({ block: "nearest" });
  }

  function replace(text) {
    const form = core.form();
    const before = box().value;
    if (core.choice() !== "bad" && core.choice() !== "decline") core.choose("bad");
    box().value = text;
    core.changed();
    edit();
    if (!before.trim() || before === text || before === form.dataset.response) return;
    const back = () => {
      if (core.form() === form) replace(before);
    };
    core.say("The better answer that stood there was replaced.", "", { label: "Take it back", run: back });
  }

  function cite(rank) {
    const before = box().value.slice(0, box().selectionStart);
    const mark = `${before && !/\s$/.test(before) ? " " : ""}[${rank}]`;
    box().setRangeText(mark, box().selectionStart, box().selectionEnd, "end");
    box().focus();
    core.changed();
  }

  function wrong() {
    const text = box().value;
    if (text.length > MAX) {
      const [long, most] = [text.length, MAX].map((number) => number.toLocaleString("en"));
      return `The better answer has ${long} characters; at most ${most} are kept.`;
    }
    const ranks = core.form().dataset.ranks.split(",").filter(Boolean);
    const cited = [...text.matchAll(/\[(\d{1,6})\]/g)].map((match) => match[1]);
    const missing = cited.find((rank) => !ranks.includes(String(Number(rank))));
    return missing ? `[${missing}] is not among the passages.` : "";
  }

  function check() {
    core.form().querySelector("[data-error=correction]").textContent = wrong();
  }

  return { box, edit, replace, cite, wrong, check };
};
