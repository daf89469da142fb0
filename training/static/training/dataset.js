// Draws the mix of a dataset: rows by right behaviour, stacked by origin. The table below it says the same.
(() => {
  "use strict";
  const canvas = document.querySelector("canvas[data-mix]");
  if (!canvas || !window.Chart) return;
  const mix = JSON.parse(document.getElementById(canvas.dataset.mix).textContent);
  const ink = document.documentElement.classList.contains("dark") ? "#cbd5e1" : "#334155";
  new Chart(canvas, {
    type: "bar",
    data: {
      labels: mix.labels,
      datasets: mix.series.map((s) => ({ label: s.label, data: s.values, backgroundColor: s.colour, maxBarThickness: 40 })),
    },
    options: {
      indexAxis: "y",
      animation: false,
      maintainAspectRatio: false,
      plugins: { legend: { display: true, position: "bottom", labels: { color: ink, boxWidth: 14 } } },
      scales: {
        x: { stacked: true, title: { display: true, text: "Rows", color: ink }, ticks: { color: ink, precision: 0 } },
        y: { stacked: true, ticks: { color: ink }, grid: { display: false } },
      },
    },
  });
})();
