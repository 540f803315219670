// What goes through the tunnels, from what their ends have counted.

/** A host that has told nothing for so long, in seconds, is not believed any more. */
const STALE = 10;
/** How bad a path is. */
const GRAVITY = { unreachable: 3, 'small-only': 2, lossy: 1 };

/** The last readings of all hosts. */
export class Readings {
  constructor() {
    this.last = new Map();
    this.rates = new Map();
  }

  /** A line of the daemon's. */
  add(reading) {
    const { NodeID: node } = reading;
    const before = this.last.get(node);
    if (before?.Time === reading.Time) return;
    if (before) this.rates.set(node, rates(before, reading));
    this.last.set(node, reading);
    for (const [other, { Time: time }] of this.last) {
      if (reading.Time - time < STALE * 1e9) continue;
      this.last.delete(other);
      this.rates.delete(other);
    }
  }

  tunnels() {
    return tunnels(this.rates);
  }
}

/** Per second, between two readings of a host, and the way there as it is now; by the other hosts. */
export function rates(before, now) {
  const seconds = (now.Time - before.Time) / 1e9;
  const old = new Map(before.Peers.map((peer) => [peer.NodeID, peer]));
  const found = new Map();
  for (const peer of now.Peers) {
    const past = old.get(peer.NodeID);
    if (!past || seconds <= 0) continue;
    // Counters begin anew when the daemon has laid its table again.
    const per = (key) => Math.max(0, peer[key] - past[key]) / seconds;
    found.set(peer.NodeID, { sent: per('TxBytes'), received: per('RxBytes'), packetsSent: per('TxPackets'), packetsReceived: per('RxPackets'), path: peer.Path });
  }
  return found;
}

/**
 * Each pair of hosts once, bad ones first, then the busiest. What one end has sent counts rather than
 * what the other has received: between them it may be lost. The path is the worse of both directions.
 */
export function tunnels(byHost) {
  const found = new Map();
  for (const [node, peers] of byHost) {
    for (const [peer, flow] of peers) {
      const [from, to] = node < peer ? [node, peer] : [peer, node];
      const key = `${from}/${to}`;
      const tunnel = found.get(key) ?? { from, to };
      if (node === from) tunnel.there = flow;
      else tunnel.back = flow;
      found.set(key, tunnel);
    }
  }
  const list = [...found.values()].map(({ from, to, there, back }) => ({
    from,
    to,
    sent: there?.sent ?? back.received,
    received: back?.sent ?? there.received,
    packetsSent: there?.packetsSent ?? back.packetsReceived,
    packetsReceived: back?.packetsSent ?? there.packetsReceived,
    path: worse(there?.path, back?.path),
  }));
  const gravity = ({ path }) => GRAVITY[path?.State] ?? 0;
  return list.sort((a, b) => gravity(b) - gravity(a) || b.sent + b.received - a.sent - a.received || (a.from + a.to < b.from + b.to ? -1 : 1));
}

function worse(one, other) {
  if (!one || !other) return one ?? other;
  return (GRAVITY[other.State] ?? 0) > (GRAVITY[one.State] ?? 0) ? other : one;
}
