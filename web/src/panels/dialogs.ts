// Dialogs: one with a line of text, and one with yes or no. The focus returns to where it was.

import type { App, Question } from "../app";
import { element } from "../dom";
import { text } from "../text";

let count = 0;

/** Show a dialog and return it; it is removed when it closes. `content` gets the function that closes it. */
export function showDialog(
  title: string,
  kind: string,
  content: (close: () => void) => (Node | null)[],
  closed: () => void = () => {},
): HTMLDialogElement {
  const heading = `dialog-title-${++count}`;
  const dialog = element("dialog", { class: kind, "aria-labelledby": heading });
  dialog.append(element("h2", { id: heading }, title));
  for (const part of content(() => dialog.close())) if (part) dialog.append(part);
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Ask for a line of text; null if cancelled. */
export function ask(question: Question): Promise<string | null> {
  return new Promise((resolve) => {
    const field = element("input", {
      type: "text", value: question.value ?? "", maxlength: question.longest ?? 200, required: true,
      autocomplete: "off", autofocus: true,
    });
    showDialog(question.title, "question", (closeDialog) => {
      const close = (answer: string | null): void => {
        resolve(answer);
        closeDialog();
      };
      const suggestions = (question.suggestions ?? []).map((suggestion) => element("button", {
        type: "button",
        onclick: () => {
          field.value = suggestion;
          field.focus();
        },
      }, suggestion));
      const form = element("form", {
        onsubmit: (event: SubmitEvent) => {
          event.preventDefault();
          const answer = field.value.trim();
          if (answer) close(answer);
        },
      },
        element("label", {}, question.label, field),
        suggestions.length > 0 && element("div", { class: "suggestions" }, ...suggestions),
        element("div", { class: "dialog-buttons" },
          element("button", { type: "button", onclick: () => close(null) }, question.cancel ?? text.buttons.cancel),
          element("button", { type: "submit", class: "primary" }, question.button)));
      return [element("p", { class: "quiet" }, question.text), form];
    }, () => resolve(null));
    field.select();
  });
}

/** Ask for a confirmation. */
export function confirm(title: string, words: string, button: string): Promise<boolean> {
  return new Promise((resolve) => {
    showDialog(title, "question", (close) => [
      element("p", { class: "quiet" }, words),
      element("div", { class: "dialog-buttons" },
        element("button", { onclick: close }, text.buttons.cancel),
        element("button", {
          class: "primary", autofocus: true,
          onclick: () => {
            resolve(true);
            close();
          },
        }, button)),
    ], () => resolve(false));
  });
}

export function mountDialogs(app: App): void {
  app.ask = ask;
}
