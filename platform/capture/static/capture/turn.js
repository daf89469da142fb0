// A citation lights up its sentence while the pointer or the focus is on it; pressing it goes there (plain link).
(() => {
  const light = (event, on) => {
    const link = event.target.closest?.("a.tn-cite");
    if (!link) return;
    document.getElementById(link.hash.slice(1))?.classList.toggle("lit", on);
  };
  for (const [name, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
    document.addEventListener(name, (event) => light(event, on));
  }
})();
