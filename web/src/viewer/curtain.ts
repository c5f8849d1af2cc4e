// Overlay while no scan is shown: progress of loading, an error, or what to do.

import type { App } from "../app";
import { byId, element, replace } from "../dom";
import { text } from "../text";

export function mountCurtain(app: App): void {
  const curtain = byId("curtain");
  byId("stage").setAttribute("aria-label", text.view.stage);
  app.store.watch(
    ({ loading, failure, study, studies }) => [loading, failure, study, studies.length > 0],
    () => {
      const { loading, failure, study, studies } = app.store.state;
      curtain.hidden = Boolean(study) && !loading && !failure;
      if (loading) {
        const ready = loading.bytes > 0 && loading.loaded >= loading.bytes;
        replace(curtain, element("div", { class: "curtain-box" },
          element("p", {}, text.view.loading(loading.name)),
          element("progress", {
            max: Math.max(loading.bytes, 1),
            value: loading.bytes && !ready ? loading.loaded : null,
            "aria-label": text.view.loading(loading.name),
          }),
          element("p", { class: "quiet" },
            ready || !loading.bytes ? text.view.preparing : text.view.amount(loading.loaded, loading.bytes))));
      } else if (failure) {
        replace(curtain, element("div", { class: "curtain-box" },
          element("p", { class: "error" }, failure.sentence),
          element("button", { onclick: () => void app.open(failure.id) }, text.buttons.retry)));
      } else if (!study && studies.length) {
        replace(curtain, element("div", { class: "curtain-box" }, element("p", { class: "quiet" }, text.view.none)));
      } else replace(curtain);
    },
  );
}
