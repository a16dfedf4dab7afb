// As much of a SIP message as we need: whether it is a 2xx to REGISTER, its rows of one
// header, and the challenges of a 401. SIP libraries do not show an application the 200
// of a refreshed REGISTER, so we read the text that the WebSocket delivered.

/** What a 2xx answer to a REGISTER says. */
export interface RegisterAnswer {
  /** Rows of the header that was asked for. */
  rows: string[];
  /** Whether a contact is left bound: an un-REGISTER leaves none of ours. */
  bound: boolean;
}

/**
 * Reads text as a 2xx answer to a REGISTER; anything else is undefined. The header is
 * believed there only: in any other message it could come from the other user.
 */
export function registerAnswer(text: string, header: string): RegisterAnswer | undefined {
  const end = text.indexOf('\r\n\r\n');
  const lines = unfold(end < 0 ? text : text.slice(0, end)).split('\r\n');
  if (!/^SIP\/2\.0 2[0-9]{2} /.test(lines[0] ?? '')) return undefined;

  const cseq = rowsOf(lines, 'cseq');
  if (cseq.length !== 1 || !/^[0-9]+[ \t]+REGISTER$/.test(cseq[0] ?? '')) return undefined;
  const contacts = [...rowsOf(lines, 'contact'), ...rowsOf(lines, 'm')];
  return { rows: rowsOf(lines, header), bound: contacts.length > 0 };
}

/**
 * Leaves of several challenges in a 401 or 407 only those that a library can answer
 * which knows MD5 alone. RFC 8760 §2.4 lets a client take the first one that it
 * supports; JsSIP and SIP.js take the last, and give up where that is SHA-256.
 */
export function withMD5Only(text: string): string {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0 || !/^SIP\/2\.0 40[17] /.test(text)) return text;
  const lines = unfold(text.slice(0, end)).split('\r\n');
  const isChallenge = (line: string) => /^(?:www|proxy)-authenticate[ \t]*:/i.test(line);
  const isMD5 = (line: string) => !/[ ,\t]algorithm[ \t]*=/i.test(line) || /[ ,\t]algorithm[ \t]*=[ \t]*"?md5"?[ \t]*(?:,|$)/i.test(line);
  if (!lines.some((line) => isChallenge(line) && isMD5(line))) return text;
  return lines.filter((line) => !isChallenge(line) || isMD5(line)).join('\r\n') + text.slice(end);
}

/** Joins continued lines (RFC 3261 §7.3.1). */
function unfold(head: string): string {
  return head.replace(/\r\n[ \t]+/g, ' ');
}

function rowsOf(lines: readonly string[], name: string): string[] {
  const rows: string[] = [];
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(':');
    if (colon > 0 && line.slice(0, colon).trim().toLowerCase() === name) rows.push(line.slice(colon + 1).trim());
  }
  return rows;
}
