/* Draws agreement by week from the page's data block; the table below it says the same in numbers. */
"use strict";

(() => {
  const dark = () => document.documentElement.classList.contains("dark");
  const ink = () => (dark() ? "#cbd5e1" : "#334155");

  const draw = (canvas, data) =>
    new Chart(canvas, {
      type: "line",
      data: {
        labels: data.points.map((point) => point.label),
        datasets: [
          { data: data.points.map((point) => point.high), borderWidth: 0, pointRadius: 0, label: "upper end" },
          {
            data: data.points.map((point) => point.low),
            borderWidth: 0,
            pointRadius: 0,
            fill: "-1",
            backgroundColor: dark() ? "rgb(100 128 156 / 35%)" : "rgb(100 128 156 / 22%)",
            label: "lower end",
          },
          {
            data: data.points.map((point) => point.value),
            borderColor: dark() ? "#93c5fd" : "#31577d",
            backgroundColor: dark() ? "#93c5fd" : "#31577d",
            borderWidth: 2,
            label: data.label,
          },
        ],
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        plugins: { legend: { display: false } },
        scales: {
          y: { suggestedMin: 0, max: 1, title: { display: true, text: data.axis, color: ink() }, ticks: { color: ink() } },
          x: { ticks: { color: ink(), maxRotation: 0 }, grid: { display: false } },
        },
      },
    });

  document.querySelectorAll("canvas[data-agreement]").forEach((canvas) => {
    const block = document.getElementById(canvas.dataset.agreement);
    if (block && window.Chart) draw(canvas, JSON.parse(block.textContent));
  });
})();
