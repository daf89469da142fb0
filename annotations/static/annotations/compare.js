/* The blind comparison: arrows choose, numbers say what decided it, Enter sends. The answer to each action holds the
   next pair; without this script the form works as a plain one. */
"use strict";

(() => {
  const root = document.getElementById("cp");
  const work = document.getElementById("cp-work");
  const message = document.getElementById("cp-message");
  const help = document.getElementById("cp-help");
  let shownAt = performance.now();
  let busy = false;

  const form = () => work.querySelector("form.lb-form");
  const chosen = () => form()?.querySelector("[name=side]:checked");

  function say(text, tone, retry) {
    message.replaceChildren();
    if (!text) return;
    const line = document.createElement("p");
    line.className = tone || "";
    line.textContent = text;
    if (retry) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "lb-button";
      button.textContent = "Try again";
      button.addEventListener("click", retry);
      line.append(button);
    }
    message.append(line);
  }

  function mark() {
    const side = chosen()?.value;
    work.querySelectorAll(".cp-answer").forEach((answer) => {
      answer.classList.toggle("chosen", side === answer.dataset.side || side === "both_good");
    });
  }

  function show(html) {
    work.innerHTML = html;
    const progress = work.querySelector("#cp-progress-new");
    if (progress) document.getElementById("cp-progress").replaceChildren(progress.content.cloneNode(true));
    shownAt = performance.now();
    work.querySelector(".cp-body")?.scrollTo(0, 0);
    if (window.innerWidth < 900) window.scrollTo(0, 0);
    work.querySelector(".lb-nothing")?.focus();
    mark();
  }

  function token() {
    return work.querySelector("[name=csrfmiddlewaretoken]")?.value || "";
  }

  async function send(url, data, again) {
    if (busy) return;
    busy = true;
    try {
      const headers = { "X-Requested-With": "fetch", "X-CSRFToken": token() };
      const answer = await fetch(url, { method: "POST", body: data, headers });
      const body = (answer.headers.get("Content-Type") || "").includes("json") ? await answer.json() : null;
      if (answer.ok && body) {
        show(body.html);
        say(body.message, "success");
      } else if (answer.status === 404) {
        say("This comparison is not there any more: it was deleted. The arrow at the top leads back.", "warning");
      } else if (body?.gone) {
        say(body.message, "warning", () => window.location.reload());
      } else {
        say(body?.message || "That was refused. Reload the page; you may have been logged out.", "error");
      }
    } catch {
      say("No connection. Your choice is still here.", "error", again);
    } finally {
      busy = false;
    }
  }

  function submit() {
    const sheet = form();
    if (!sheet) return;
    if (!chosen()) {
      say("Choose first: ← A is better, → B is better, ↑ both good, ↓ both bad.", "warning");
      return;
    }
    sheet.elements.seconds.value = ((performance.now() - shownAt) / 1000).toFixed(1);
    send(sheet.action, new FormData(sheet), submit);
  }

  function undo() {
    const data = new FormData();
    data.set("csrfmiddlewaretoken", token());
    send(root.dataset.undo, data, undo);
  }

  document.addEventListener("submit", (event) => {
    if (event.target.closest("#cp-help")) return;
    event.preventDefault();
    if (event.target.matches("[data-undo-form]")) undo();
    else submit();
  });
  document.addEventListener("change", mark);
  document.addEventListener("click", (event) => {
    const press = event.target.closest("[data-press]")?.dataset.press;
    if (press === "undo") undo();
    else if (press === "help") help.showModal();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const sheet = form();
    const side = sheet?.querySelector(`[name=side][data-key="${CSS.escape(event.key)}"]`);
    const aspect = /^[1-9]$/.test(event.key) && sheet?.querySelector(`[name=aspects][data-key="${event.key}"]`);
    if (event.repeat && (side || aspect || ["Enter", "u", "?"].includes(event.key))) {
      // A key that is held down must not judge the pairs that follow unseen.
    } else if (side) {
      if (side.checked) submit();
      else side.checked = true;
      mark();
    } else if (aspect) {
      aspect.checked = !aspect.checked;
    } else if (event.key === "Enter") {
      if (event.target.closest("a, button, summary")) return;
      submit();
    } else if (event.key === "u") undo();
    else if (event.key === "?") help.showModal();
    else return;
    event.preventDefault();
  });
  mark();
})();
