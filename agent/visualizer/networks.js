// The overlay networks: a ring of hosts with the tunnels between them, and what flows through them.

import { attribute, h, keyed, svg, text } from './dom.js';
import { lines, problem } from './feed.js';
import { compareNames, nodesOn, orderNodes, servicesOn } from './model.js';
import { Readings } from './tunnels.js';
import { pathWords, perSecond, plural, rate } from './words.js';

const RADIUS = 330;
const PAUSE = 250;
/** Tunnels on which the flow is drawn: those with most of it. */
const FLOWS = 32;
/** Tunnels in the list. */
const LISTED = 40;

export class NetworkView {
  constructor(root, open) {
    this.root = root;
    this.chosen = null;
    this.readings = new Readings();
    this.list = h('ul', { class: 'networks' });
    this.rings = svg('g', { class: 'rings' });
    this.flows = svg('g', { class: 'flows' });
    this.hosts = svg('g', { class: 'ring-hosts' });
    this.drawing = svg('svg', { viewBox: '-500 -430 1000 860', role: 'img', 'aria-labelledby': 'ring-title' }, svg('title', { id: 'ring-title' }), this.rings, this.flows, this.hosts);
    this.tunnels = h('ol', { class: 'tunnels' });
    this.caption = h('h3', {});
    root.append(
      h('div', { class: 'network-list' }, h('h2', {}, 'Networks'), this.list, h('div', { class: 'tunnel-list' }, this.caption, this.tunnels)),
      h('figure', {}, this.drawing),
    );
    this.list.addEventListener('click', (event) => {
      const row = event.target.closest('[data-network]');
      if (!row) return;
      const { network } = row.dataset;
      this.chosen = this.chosen === network ? null : network;
      if (this.chosen) open('network', this.chosen, row);
      this.draw(this.state);
    });
  }

  /** Only a view that is looked at is drawn, and asks what flows. */
  visible(shown, state) {
    this.shown = shown;
    if (shown) {
      this.draw(state);
      this.measure();
    } else this.pause();
  }

  pause() {
    this.controller?.abort();
    this.controller = null;
  }

  render(state, dirty) {
    this.state = state;
    if (!this.shown || this.timer) return;
    if (!(dirty.all || dirty.nodes.size || dirty.networks.size || dirty.services.size)) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.shown) this.draw(this.state);
    }, PAUSE);
  }

  draw(state) {
    if (!state) return;
    this.state = state;
    const networks = [...state.networks.values()].sort((a, b) => Number(a.ingress) - Number(b.ingress) || compareNames(a.name, b.name));
    const about = networks.map((network, place) => ({ network, place, services: servicesOn(state, network), hosts: nodesOn(state, network) }));
    keyed(
      this.list,
      about,
      ({ network }) => network.id,
      ({ network }) => h('li', {}, h('button', { type: 'button', 'data-network': network.id, class: 'network' }, h('i', { class: 'swatch' }), h('b'), h('span'), h('small'))),
      (element, { network, place, services, hosts }) => {
        const row = element.firstElementChild;
        row.firstElementChild.className = `swatch h${hueOf(place)}`;
        attribute(row, 'aria-pressed', String(this.chosen === network.id));
        text(row.children[1], network.name);
        text(row.children[2], network.subnets.join(', '));
        text(row.children[3], `${plural(services.length, 'service')} · ${plural(hosts.length, 'host')}`);
      },
    );
    this.ring(state, about);
    this.flow();
  }

  ring(state, about) {
    const nodes = orderNodes(state);
    const turn = (place) => (place / nodes.length) * 2 * Math.PI - Math.PI / 2;
    this.spots = new Map(nodes.map((node, place) => [node.id, { x: RADIUS * Math.cos(turn(place)), y: RADIUS * Math.sin(turn(place)), turn: turn(place), name: node.name }]));
    const many = nodes.length > 40;
    text(this.drawing.firstElementChild, `${plural(nodes.length, 'host')} in a ring; lines are the tunnels of ${plural(about.length, 'network')}`);
    keyed(
      this.hosts,
      nodes,
      (node) => node.id,
      () => svg('g', {}, svg('circle'), svg('text')),
      (element, node) => {
        const spot = this.spots.get(node.id);
        const [circle, label] = element.children;
        attribute(element, 'data-state', node.state);
        attribute(element, 'data-role', node.role);
        attribute(circle, 'cx', spot.x.toFixed(1));
        attribute(circle, 'cy', spot.y.toFixed(1));
        attribute(circle, 'r', many ? '5' : node.role === 'manager' ? '13' : '10');
        const left = spot.x < -1;
        const degrees = (spot.turn * 180) / Math.PI + (left ? 180 : 0);
        const away = RADIUS + (many ? 12 : 24);
        const [x, y] = [away * Math.cos(spot.turn), away * Math.sin(spot.turn)];
        // Few names stand upright; many lean outwards, or they would lie on each other.
        attribute(label, 'transform', many ? `translate(${x.toFixed(1)} ${y.toFixed(1)}) rotate(${degrees.toFixed(1)})` : `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
        const upright = Math.abs(spot.x) < 60 ? 'middle' : left ? 'end' : 'start';
        attribute(label, 'text-anchor', many ? (left ? 'end' : 'start') : upright);
        attribute(label, 'dy', many ? '.35em' : Math.abs(spot.x) < 60 ? (spot.y < 0 ? '-.2em' : '.9em') : '.35em');
        attribute(label, 'data-small', many ? '' : null);
        text(label, node.name);
      },
    );
    const shown = about.filter(({ network }) => !this.chosen || network.id === this.chosen);
    keyed(
      this.rings,
      shown,
      ({ network }) => network.id,
      () => svg('path', { fill: 'none' }),
      (element, { network, place, hosts }) => {
        attribute(element, 'class', `h${hueOf(place)}`);
        attribute(element, 'data-ingress', network.ingress && !this.chosen ? '' : null);
        attribute(element, 'd', this.chords(hosts, this.chosen ? 0 : place));
      },
    );
    attribute(this.rings, 'data-many', many ? '' : null);
  }

  /** All tunnels of a network as one path; networks of the same hosts lie beside each other. */
  chords(hosts, place) {
    const spots = hosts.map((id) => this.spots.get(id)).filter(Boolean);
    let path = '';
    for (let one = 0; one < spots.length; one++) {
      for (let other = one + 1; other < spots.length; other++) {
        const [a, b] = [spots[one], spots[other]];
        const { x, y } = bend(a, b, place);
        path += `M${a.x.toFixed(0)} ${a.y.toFixed(0)}Q${x.toFixed(0)} ${y.toFixed(0)} ${b.x.toFixed(0)} ${b.y.toFixed(0)}`;
      }
    }
    return path;
  }

  /** Follows the counters of all hosts' tunnels, which the daemon tells while somebody listens. */
  async measure() {
    if (this.controller) return;
    this.controller = new AbortController();
    const { signal } = this.controller;
    try {
      const response = await fetch('overnet/traffic', { signal });
      if (!response.ok) throw await problem(response);
      this.readings = new Readings();
      await lines(response.body, (texts) => {
        for (const line of texts) this.readings.add(JSON.parse(line));
        this.flow();
      });
    } catch (error) {
      if (!signal.aborted) text(this.caption, `What flows is not known: ${error.message}`);
    }
  }

  flow() {
    if (!this.spots) return;
    const ends = (tunnel) => ({ ...tunnel, one: this.spots.get(tunnel.from), other: this.spots.get(tunnel.to) });
    const tunnels = this.readings.tunnels().map(ends).filter(({ one, other }) => one && other);
    if (tunnels.length) text(this.caption, `${plural(tunnels.length, 'tunnel')}, the busiest first`);
    keyed(
      this.tunnels,
      tunnels.slice(0, LISTED),
      ({ from, to }) => `${from}/${to}`,
      () => h('li', {}, h('b'), h('span'), h('span'), h('small'), h('em')),
      (element, { one, other, sent, received, packetsSent, packetsReceived, path }) => {
        attribute(element, 'data-path', path?.State ?? null);
        text(element.children[4], pathWords(path));
        text(element.children[0], `${one.name} ⇄ ${other.name}`);
        text(element.children[1], `→ ${rate(sent)}`);
        text(element.children[2], `← ${rate(received)}`);
        text(element.children[3], `packets → ${perSecond(packetsSent)} ← ${perSecond(packetsReceived)}`);
      },
    );
    keyed(
      this.flows,
      tunnels.filter(({ sent, received }) => sent + received > 0).slice(0, FLOWS),
      ({ from, to }) => `${from}/${to}`,
      () => svg('path', { fill: 'none' }),
      (element, { one, other, sent, received, path }) => {
        attribute(element, 'data-path', path?.State ?? null);
        const { x, y } = bend(one, other, 0);
        attribute(element, 'd', `M${one.x.toFixed(0)} ${one.y.toFixed(0)}Q${x.toFixed(0)} ${y.toFixed(0)} ${other.x.toFixed(0)} ${other.y.toFixed(0)}`);
        attribute(element, 'stroke-width', Math.max(1, Math.min(12, Math.log2(1 + (sent + received) / 500) * (this.spots.size > 40 ? 0.35 : 0.8))).toFixed(1));
      },
    );
  }
}

/** Where a tunnel bends to: towards the middle, each network beside the others. */
function bend(a, b, place) {
  const lane = (place % 5) - 2;
  const length = Math.hypot(b.x - a.x, b.y - a.y) || 1;
  const aside = (lane * 26) / length;
  const pull = 0.45 - 0.05 * lane;
  return { x: ((a.x + b.x) / 2) * pull - (b.y - a.y) * aside, y: ((a.y + b.y) / 2) * pull + (b.x - a.x) * aside };
}

/** Neighbours in the list differ clearly. */
function hueOf(place) {
  return (place * 7 + 14) % 24;
}
