/* The passages: marks, folding, and the one that a citation points at. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.passages = (core) => {
  const MARKS = ["relevant", "not_relevant", "unsure", ""];
  const context = (rank) => core.form().querySelector(`.lb-context[data-rank="${rank}"]`);

  function setMark(rank, mark) {
    const passage = context(rank);
    if (!passage) return;
    passage.dataset.mark = mark;
    passage.querySelectorAll("input").forEach((box) => (box.checked = box.value === mark));
  }

  function cycleMark(rank) {
    const passage = context(rank);
    if (!passage) return;
    setMark(rank, MARKS[(MARKS.indexOf(passage.dataset.mark) + 1) % MARKS.length]);
    passage.scrollIntoView({ block: "nearest" });
    core.changed();
  }

  function unfoldAll() {
    const folded = [...core.form().querySelectorAll(".lb-text.folds")];
    const open = folded.some((text) => !text.classList.contains("open"));
    folded.forEach((text) => setFold(text, open));
  }

  function setFold(text, open) {
    text.classList.toggle("open", open);
    const button = text.parentElement.querySelector(".lb-unfold");
    button.textContent = open ? "Show less" : "Show all";
    button.setAttribute("aria-expanded", String(open));
  }

  core.root.addEventListener("click", (event) => {
    const button = event.target.closest(".lb-unfold");
    if (button) {
      const text = button.parentElement.querySelector(".lb-text");
      setFold(text, !text.classList.contains("open"));
    }
    const mark = event.target.closest(".lb-mark input");
    const passage = mark?.closest(".lb-context");
    if (passage && passage.dataset.mark === mark.value) {
      setMark(Number(passage.dataset.rank), ""); // a second click takes the mark away
      core.changed();
    }
  });
  for (const [name, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
    core.work.addEventListener(name, (event) => {
      const cited = event.target.closest?.("[data-cites]");
      if (core.form() && cited) core.form().querySelector(`#passage-${cited.dataset.cites}`)?.classList.toggle("lit", on);
    });
  }

  return { setMark, cycleMark, unfoldAll };
};
