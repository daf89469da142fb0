// Draws the charts of a dataset: the mix (stacked, lying) and lengths (side by side). The tables below say the same.
(() => {
  "use strict";
  if (!window.Chart) return;
  const ink = document.documentElement.classList.contains("dark") ? "#cbd5e1" : "#334155";
  for (const canvas of document.querySelectorAll("canvas[data-mix]")) {
    const mix = JSON.parse(document.getElementById(canvas.dataset.mix).textContent);
    const counts = { title: { display: true, text: "Rows", color: ink }, ticks: { color: ink, precision: 0 }, stacked: !mix.beside };
    const names = { ticks: { color: ink }, grid: { display: false }, stacked: !mix.beside };
    new Chart(canvas, {
      type: "bar",
      data: {
        labels: mix.labels,
        datasets: mix.series.map((s) => ({ label: s.label, data: s.values, backgroundColor: s.colour, maxBarThickness: 40 })),
      },
      options: {
        indexAxis: mix.beside ? "x" : "y",
        animation: false,
        maintainAspectRatio: false,
        plugins: { legend: { display: true, position: "bottom", labels: { color: ink, boxWidth: 14 } } },
        scales: mix.beside ? { x: { ...names, title: { display: true, text: "Words", color: ink } }, y: counts } : { x: counts, y: names },
      },
    });
  }
})();
