/* The adjudication page: walk between labels, take one over into the form. */
"use strict";

(() => {
  const form = document.getElementById("lb-settle");
  const sides = [...document.querySelectorAll(".lb-side")];
  const why = form.querySelector(".lb-why");
  const answer = form.querySelector("[name=correction]");

  function showWhy() {
    why.hidden = form.querySelector("[name=choice]:checked")?.value !== "bad";
  }

  function choose(side) {
    const { verdict, reasons, learnt } = side.dataset;
    form.querySelector(`[name=choice][value=${verdict}]`).checked = true;
    form.querySelectorAll("[name=reasons]").forEach((box) => (box.checked = reasons.split(" ").includes(box.value)));
    answer.value = verdict === "bad" ? learnt : "";
    sides.forEach((other) => other.classList.toggle("chosen", other === side));
    showWhy();
    form.scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const here = sides.indexOf(document.activeElement.closest(".lb-side"));
    const next = sides[(here + by + sides.length) % sides.length] || sides[0];
    next?.focus();
  }

  sides.forEach((side) => side.querySelector(".lb-choose").addEventListener("click", () => choose(side)));
  form.addEventListener("change", showWhy);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea, input")) return;
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "c") {
      const side = document.activeElement.closest(".lb-side");
      if (side) choose(side);
    } else return;
    event.preventDefault();
  });
  showWhy();
})();
