import { byId, clockTime, make, trimList } from './dom.js';

/** Writes a line under "What happened". Callers pass no secrets. */
export function log(text: string, bad = false): void {
  const list = byId('log');
  const item = make('li');
  if (bad) item.className = 'bad';
  item.append(clockTime(), text);
  const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 8;
  list.append(item);
  trimList(list, 200);
  if (atEnd) list.scrollTop = list.scrollHeight;
}
