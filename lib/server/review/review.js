// Page of one study: send a decision, or undo it, and show a refusal.
(() => {
  "use strict";
  const { decision, version, list } = document.body.dataset;
  const buttons = [...document.querySelectorAll("button")];

  const send = async options => {
    buttons.forEach(button => (button.disabled = true));
    const answer = await fetch(decision, options).catch(() => null);
    if (answer?.ok) return location.assign(list);
    const said = await answer?.json().catch(() => null);
    document.getElementById("said").textContent = said?.detail || "The server does not answer; try again.";
    buttons.forEach(button => (button.disabled = false));
  };

  for (const button of buttons) {
    const { choice } = button.dataset;
    const body = JSON.stringify({ choice, version });
    const options = choice === undefined ? { method: "DELETE" } : { method: "POST", body };
    button.addEventListener("click", () => send(options));
  }
})();
