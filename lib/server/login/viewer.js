// Pages of OHIF: show the user, a button to log out, and a link to log in again after the login has expired. The login
// opens in another tab, so that points on the page stay.
(() => {
  "use strict";
  const bar = document.createElement("div");
  bar.id = "inextremis-login";
  bar.style.cssText =
    "position:fixed;bottom:0;left:0;z-index:9999;padding:2px 10px;" +
    "font:13px sans-serif;color:#fff;background:#1b3a5c;border-radius:0 6px 0 0";
  let isExpired = false;

  // The panel connects to http and port 8000 by default; the session is valid for the address of this page.
  document.cookie = `MONAILABEL_SERVER_URL=${encodeURIComponent(`${location.origin}/`)}; path=/ohif; SameSite=Lax`;

  const element = (name, text, changes = {}) =>
    Object.assign(document.createElement(name), { textContent: text }, changes);

  const show = (...parts) => {
    bar.replaceChildren(...parts);
    if (!bar.isConnected && document.body) document.body.append(bar);
  };

  const logOut = async () => {
    const answer = await fetch("/logout", { method: "POST" });
    document.open();
    document.write(await answer.text());
    document.close();
  };

  const showUser = user => {
    isExpired = false;
    bar.style.background = "#1b3a5c";
    const button = element("button", "Log out", { onclick: logOut });
    button.style.cssText = "margin-left:8px;text-decoration:underline";
    show(element("span", `Logged in as ${user.username}`), button);
  };

  const showExpired = () => {
    isExpired = true;
    bar.style.background = "#a40e26";
    const link = element("a", "Log in again", { href: "/login?next=%2Flogin%2Fdone", target: "_blank" });
    link.style.cssText = "text-decoration:underline;margin:0 4px";
    const advice = " and repeat the last step; your points stay.";
    show(element("span", "Your login has expired. "), link, element("span", advice));
  };

  const look = async () => {
    const answer = await realFetch("/auth/token/valid").catch(() => null);
    if (answer?.ok) showUser(await answer.json());
    else if (answer?.status === 401) showExpired();
  };

  const note = (address, status) => {
    if (status === 401 && new URL(address, location.href).origin === location.origin) showExpired();
  };

  const realFetch = window.fetch.bind(window);
  window.fetch = async (...given) => {
    const answer = await realFetch(...given);
    note(answer.url || location.href, answer.status);
    return answer;
  };
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (...given) {
    this.addEventListener("load", () => note(this.responseURL || location.href, this.status));
    return open.apply(this, given);
  };

  window.addEventListener("focus", () => isExpired && look());
  document.addEventListener("visibilitychange", () => isExpired && !document.hidden && look());
  document.addEventListener("DOMContentLoaded", look);
})();
