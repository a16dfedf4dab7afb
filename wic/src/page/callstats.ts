/** What a call shows of its connection. */
export interface CallStats {
  local: string; // the selected candidates in words; '' while there are none
  remote: string;
  sent: number; // bytes
  received: number;
  audioPackets: number; // received
}

interface Candidate {
  candidateType?: string;
  address?: string;
  port?: number;
  protocol?: string;
  relayProtocol?: string;
}

/** Reads the statistics of a connection. */
export async function callStats(pc: RTCPeerConnection): Promise<CallStats> {
  const report = await pc.getStats();
  const stats: CallStats = { local: '', remote: '', sent: 0, received: 0, audioPackets: 0 };
  for (const entry of report.values() as Iterable<Record<string, unknown> & { type: string }>) {
    if (entry.type === 'transport') {
      stats.sent += Number(entry['bytesSent'] ?? 0);
      stats.received += Number(entry['bytesReceived'] ?? 0);
      const pair = report.get(String(entry['selectedCandidatePairId'])) as Record<string, unknown> | undefined;
      if (!pair) continue;
      stats.local = inWords(report.get(String(pair['localCandidateId'])) as Candidate | undefined);
      stats.remote = inWords(report.get(String(pair['remoteCandidateId'])) as Candidate | undefined);
    } else if (entry.type === 'inbound-rtp' && entry['kind'] === 'audio') {
      stats.audioPackets += Number(entry['packetsReceived'] ?? 0);
    }
  }
  return stats;
}

/** The relay's own protocol is in getStats only, and for the local side only. */
function inWords(c: Candidate | undefined): string {
  if (!c) return '';
  const host = c.address ?? 'address hidden';
  const address = `${host.includes(':') ? `[${host}]` : host}:${c.port ?? 0}`;
  const via = c.relayProtocol ? `, reached by ${c.relayProtocol}` : '';
  return `${c.candidateType ?? 'unknown'} ${address} (${c.protocol ?? 'udp'}${via})`;
}
