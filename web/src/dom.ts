// Build elements. Styles are set by classes: the page's security policy forbids style attributes.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: never) => void)>;

const SVG = "http://www.w3.org/2000/svg";

/** `element("button", { class: "primary", onclick: go, disabled: true }, "Go")`; false and null leave one out. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Replace the children of an element. */
export function replace(parent: Element, ...children: Child[]): void {
  parent.replaceChildren(...children.filter((child): child is Node | string => Boolean(child)));
}

/** Return the element with this id. */
export function byId<E extends Element = HTMLElement>(id: string): E {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element #${id}`);
  return found as unknown as E;
}

function fill<E extends Element>(made: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value as EventListener);
    else if (value !== null && value !== undefined && value !== false)
      made.setAttribute(name, value === true ? "" : String(value));
  }
  replace(made, ...children);
  return made;
}

/** Rebuild a part of the page; the element that had the focus gets it back, by its data-focus. */
export function keepingFocus(part: HTMLElement, build: () => void): void {
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement : null;
  const name = focused && part.contains(focused) ? focused.dataset.focus : undefined;
  build();
  if (name) part.querySelector<HTMLElement>(`[data-focus="${CSS.escape(name)}"]`)?.focus();
}
