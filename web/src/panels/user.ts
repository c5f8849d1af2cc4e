// Name of the annotator, from the login or typed once, and the user menu.

import type { App } from "../app";
import { element, replace } from "../dom";
import { text } from "../text";
import { recall, remember } from "./browser_memory";
import { icon } from "./icons";
import { menu } from "./menu";

const words = text.panels.user;
const LONGEST = 80;

/** Return the button with the name; a stored name is used from the start. */
export function mountUser(app: App): HTMLElement {
  app.store.set({ user: recall("inextremis.name") || null });
  app.define("name", () => askName(app));
  let asked = false;
  app.store.watch((state) => state.me, (me) => {
    if (!me || me.asks_login || asked) return;
    asked = true;
    if (recall("inextremis.name") === null) void askName(app);
  });

  const holder = element("div", { class: "user" });
  app.store.watch(({ me, user }) => [me, user], () => {
    const { me, user } = app.store.state;
    if (!me) return replace(holder);
    const name = user ?? words.none;
    const entries: (HTMLElement | false)[] = [
      me.asks_login && element("p", { class: "menu-role quiet" }, words.role(me.role)),
      !me.asks_login && element("button", { onclick: () => void app.do("name") }, words.change),
      me.may.review && element("a", { href: "/review" }, words.readings),
      me.asks_login && element("form", { method: "post", action: "/logout" }, element("button", {}, words.logout)),
    ];
    replace(holder, menu(words.menu(name), [icon("person"), element("span", {}, name)], entries));
  });
  return holder;
}

/** Ask for the name; if cancelled, do not ask again by itself. */
async function askName(app: App): Promise<void> {
  const { me, user } = app.store.state;
  if (me?.asks_login) return;
  const name = await app.ask({
    title: words.nameTitle,
    text: words.nameText,
    label: words.nameLabel,
    value: user ?? "",
    button: words.nameButton,
    cancel: user ? text.buttons.cancel : words.nameCancel,
    longest: LONGEST,
  });
  if (name === null && user) return;
  remember("inextremis.name", name ?? "");
  app.store.set({ user: name });
  await app.refreshStudies().catch(() => {});
}
