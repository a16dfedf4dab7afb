/** The element with that id, of that kind; a page without it is a bug. */
export function byId<T extends Element = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return found as unknown as T;
}

/** A new element with text, never markup: names and messages come from the network. */
export function make<K extends keyof HTMLElementTagNameMap>(tag: K, text = '', className = ''): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Shows text in an element, or hides it where there is none. */
export function notice(element: HTMLElement, text: string): void {
  element.textContent = text;
  element.hidden = text === '';
}

/** Sets a state for the eye, for scripts and for style. */
export function setState(element: HTMLElement, state: string, text: string): void {
  element.dataset['state'] = state;
  if (element.textContent !== text) element.textContent = text;
}

/** The time of day, as an element. */
export function clockTime(): HTMLTimeElement {
  const now = new Date();
  const time = make('time', now.toLocaleTimeString());
  time.dateTime = now.toISOString();
  return time;
}

/** Keeps a list from growing without bound. */
export function trimList(list: Element, most: number): void {
  while (list.childElementCount > most) list.firstElementChild?.remove();
}

export function bytes(n: number): string {
  if (n < 1024) return `${n} B`;
  if (n < 1024 * 1024) return `${(n / 1024).toFixed(1)} KiB`;
  return `${(n / 1024 / 1024).toFixed(2)} MiB`;
}

export function duration(seconds: number): string {
  const s = Math.ceil(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}
