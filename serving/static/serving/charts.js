/* Draws the charts of a page from its data blocks: <canvas data-chart="id"> and a JSON block of that id.
   An arm has the same colour in every chart; the table behind each chart says the same in words. */
(() => {
  "use strict";
  const ARM = {
    extractive: "#cbd5e1",
    base: "#94a3b8",
    base_rag: "#64809c",
    few_shot: "#7c8fb0",
    adapter: "#fdba74",
    rival_rag: "#c084fc",
    adapter_rag: "#ea7317",
  };
  const dark = () => document.documentElement.classList.contains("dark");
  const ink = () => (dark() ? "#cbd5e1" : "#334155");

  const bars = (canvas, data) =>
    new Chart(canvas, {
      type: "bar",
      data: {
        labels: data.bars.map((bar) => bar.label),
        datasets: [
          {
            label: "95 % interval",
            data: data.bars.map((bar) => [bar.low, bar.high]),
            backgroundColor: ink(),
            barThickness: 3,
            grouped: false,
            order: 1,
          },
          {
            label: "Share of questions",
            data: data.bars.map((bar) => bar.value),
            backgroundColor: data.bars.map((bar) => ARM[bar.arm] || "#64809c"),
            borderRadius: 4,
            maxBarThickness: 56,
            grouped: false,
            order: 2,
          },
        ],
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        plugins: { legend: { display: false } },
        scales: {
          y: { ...(data.signed ? {} : { min: 0, max: 100 }), title: { display: true, text: data.axis, color: ink() }, ticks: { color: ink() } },
          x: { title: { display: !!data.across, text: data.across, color: ink() }, ticks: { color: ink(), maxRotation: 0, autoSkip: false }, grid: { display: false } },
        },
      },
    });

  document.querySelectorAll("canvas[data-chart]").forEach((canvas) => {
    const block = document.getElementById(canvas.dataset.chart);
    if (block && window.Chart) bars(canvas, JSON.parse(block.textContent));
  });
})();
