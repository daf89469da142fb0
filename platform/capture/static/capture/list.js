// j and k walk the rows of a list, Enter opens the one that is marked.
(() => {
  const links = () => [...document.querySelectorAll("#result_list tbody th a, #result_list tbody td.field-asked a")];
  let place = -1;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const step = { j: 1, k: -1 }[event.key];
    const rows = links();
    if (!step || !rows.length) return;
    place = Math.min(rows.length - 1, Math.max(0, place + step));
    rows[place].focus();
    event.preventDefault();
  });
})();
