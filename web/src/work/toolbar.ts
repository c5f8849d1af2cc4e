// Toolbar above the scan.

import type { ActionName, App } from "../app";
import { byId, element, replace, svg } from "../dom";
import { keyFor } from "../keys";
import { menu } from "../panels/menu";
import { text } from "../text";
import type { Viewer } from "../viewer/viewer";
import type { Preset } from "../viewer/window";
import type { State } from "../state";

export function mountToolbar(app: App, viewer: Viewer): void {
  const { store } = app;
  const { buttons: b, view: v, keys: k } = text;

  const button = (
    action: ActionName, words: string, title: string, pressed?: (state: Readonly<State>) => boolean,
    enabled?: (state: Readonly<State>) => boolean, content: Node | string = words,
  ): HTMLButtonElement => {
    const made = element("button", {
      type: "button", title: withKey(title, action), "aria-label": words, onclick: () => void app.do(action),
    }, content);
    if (pressed) store.watch(pressed, (is) => made.setAttribute("aria-pressed", String(is)));
    if (enabled) store.watch(enabled, (is) => (made.disabled = !is));
    return made;
  };

  const size = element("input", {
    type: "range", min: 0.5, max: 40, step: 0.5, "aria-label": b.size, title: withKey(b.size, "brushLarger"),
    oninput: () => store.set({ brush: { ...store.state.brush, radius_mm: Number(size.value) } }),
  });
  const sizeText = element("span", { class: "quiet number" });
  store.watch(({ brush }) => brush, (brush) => {
    size.value = String(brush.radius_mm);
    sizeText.textContent = text.view.radius(brush.radius_mm);
  });

  const presets = element("select", {
    "aria-label": v.window, title: withKey(v.windowTitle, "windowPreset"),
    onchange: () => void app.do("windowPreset", presets.value),
  });
  store.watch(({ study, view }) => [study, view.window], () => {
    const { windows } = viewer;
    const [low, high] = store.state.view.window;
    const shown = windows?.presets ?? [];
    const isPreset = windows?.range(viewer.preset).every((value, n) => value === store.state.view.window[n]);
    replace(presets,
      ...shown.map((one: Preset) => element("option", { value: one }, v.presets[one])),
      !isPreset && shown.length ? element("option", { value: "" }, v.windowed((low + high) / 2, high - low)) : null);
    presets.value = isPreset ? viewer.preset : "";
    presets.disabled = !shown.length;
  });

  const opacity = element("input", {
    type: "range", min: 0, max: 1, step: 0.05, "aria-label": v.opacity, title: v.opacity,
    oninput: () => viewer.setView({ opacity: Number(opacity.value) }),
  });
  store.watch(({ view }) => view.opacity, (value) => (opacity.value = String(value)));

  const isDrawing = ({ tool }: Readonly<State>): boolean => tool !== "points";
  const drawing = element("div", { class: "group" },
    size, sizeText,
    button("ball", b.ball, k.ball, ({ brush }) => brush.ball),
    button("fillBetween", b.fillBetween, k.fillBetween));
  store.watch(isDrawing, (is) => (drawing.hidden = !is));

  const check = (action: ActionName, words: string, is: (state: Readonly<State>) => boolean): HTMLElement => {
    const box = element("input", { type: "checkbox", onchange: () => void app.do(action) });
    store.watch(is, (now) => (box.checked = now));
    return element("label", { class: "check", title: withKey(words, action) },
      box, element("span", {}, words), element("kbd", {}, keyFor(action)));
  };

  const viewMenu = menu(v.menu, [v.menu], [
    element("label", { class: "check" }, element("span", {}, v.opacity), opacity),
    check("masks", v.masks, ({ view }) => view.showMasks),
    check("outline", v.outline, ({ view }) => view.outline),
    check("showPoints", v.points, ({ view }) => view.showPoints),
    check("crosshair", v.crosshair, ({ view }) => view.crosshair),
    check("radiological", v.radiological, ({ view }) => view.radiological),
  ]);

  replace(byId("tools"),
    element("div", { class: "group", role: "group" },
      button("points", b.points, k.points, ({ tool }) => tool === "points"),
      button("brush", b.brush, k.brush, ({ tool }) => tool === "brush"),
      button("eraser", b.eraser, k.eraser, ({ tool }) => tool === "eraser")),
    element("div", { class: "group" },
      button("undo", b.undo, k.undo, undefined, ({ canUndo }) => canUndo, arrow("M6 3 2 7l4 4M2 7h7a4 4 0 0 1 0 8H7")),
      button("redo", b.redo, k.redo, undefined, ({ canRedo }) => canRedo, arrow("m10 3 4 4-4 4M14 7H7a4 4 0 0 0 0 8h2"))),
    drawing,
    element("div", { class: "group end" }, presets, viewMenu, button("fit", v.fit, k.fit)));
}

function arrow(path: string): SVGElement {
  return svg("svg", { viewBox: "0 0 16 17", width: 15, height: 16, class: "icon", "aria-hidden": "true" },
    svg("path", { d: path }));
}

export function withKey(title: string, action: ActionName): string {
  const key = keyFor(action);
  const sentence = title.charAt(0).toUpperCase() + title.slice(1);
  return key ? `${sentence} (${key})` : sentence;
}
