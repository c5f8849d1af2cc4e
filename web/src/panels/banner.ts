// Banner: the server does not answer, or the login has expired.

import type { App } from "../app";
import { byId, element, replace } from "../dom";
import { text } from "../text";

/** `tryNow` sends a request to the server again. */
export function mountBanner(app: App, tryNow: () => void): void {
  const banner = byId("banner");
  app.store.watch(({ reached, expired }) => [reached, expired], ([reached, expired]) => {
    banner.className = reached ? "expired" : "away";
    if (!reached) {
      replace(banner, element("p", {}, text.away), element("button", { onclick: tryNow }, text.panels.banner.tryNow));
    } else if (expired) {
      replace(banner,
        element("p", {}, text.panels.banner.expired),
        element("a", { href: "/login?next=%2Flogin%2Fdone", target: "_blank", rel: "noopener" }, text.panels.banner.login));
    } else replace(banner);
  });
}
