// Files of an upload that wait for a decision: every file of the page at once, and no button that does nothing.
(() => {
  "use strict";
  const update = (form) => {
    const any = Boolean(form.querySelector("input[name=file]:checked"));
    form.querySelectorAll("[data-chosen-only]").forEach((button) => (button.disabled = !any));
  };
  // On the document: the part of the page is replaced while the work goes on.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-deciding]");
    if (!form) return;
    if (event.target.matches("[data-every]"))
      form.querySelectorAll("input[name=file]").forEach((box) => (box.checked = event.target.checked));
    update(form);
  });
  document.querySelectorAll("form[data-deciding]").forEach(update);
})();
