// The list of services, and what happened last.

import { attribute, h, keyed, text } from './dom.js';
import { countService, orderServices, progressOf } from './model.js';
import { clock, sentence } from './words.js';

/** Happenings in the list. */
const SHOWN = 30;

export class ServiceList {
  constructor(root, open) {
    this.root = root;
    this.rows = new Map();
    root.addEventListener('click', (event) => {
      const row = event.target.closest('[data-service]');
      if (row) open('service', row.dataset.service, row);
    });
  }

  render(state, dirty, chosen) {
    if (dirty.all || [...dirty.services].some((id) => this.rows.has(id) !== state.services.has(id))) this.arrange(state);
    else for (const id of dirty.services) this.rows.get(id)?.describe(state);
    for (const [id, row] of this.rows) attribute(row.button, 'aria-pressed', String(id === chosen));
  }

  arrange(state) {
    const items = [];
    let stack = '';
    for (const service of orderServices(state)) {
      if (service.stack !== stack) items.push({ id: `stack ${service.stack}`, title: service.stack });
      stack = service.stack;
      items.push(service);
    }
    const old = this.rows;
    this.rows = new Map();
    keyed(
      this.root,
      items,
      (item) => item.id,
      (item) => {
        if (item.title !== undefined) return h('li', { class: 'stack' }, h('h3', {}, item.title));
        const row = new Row(item.id);
        old.set(item.id, row);
        return row.element;
      },
      (element, item) => {
        if (item.title !== undefined) return;
        const row = old.get(item.id);
        this.rows.set(item.id, row);
        row.describe(state);
      },
    );
    if (!items.length) this.root.append(h('li', { class: 'nothing', id: 'no-services' }, 'No services yet'));
    else this.root.querySelector('#no-services')?.remove();
  }
}

class Row {
  constructor(id) {
    this.id = id;
    this.swatch = h('i', { class: 'swatch' });
    this.name = h('b');
    this.ports = h('small', { class: 'ports' });
    this.count = h('span', { class: 'count' });
    this.bar = h('i', { class: 'bar' });
    this.button = h('button', { type: 'button', class: 'service', 'data-service': id }, this.swatch, this.name, this.ports, this.count, this.bar);
    this.element = h('li', {}, this.button);
  }

  describe(state) {
    const service = state.services.get(this.id);
    if (!service) return;
    const count = countService(state, this.id);
    const job = service.mode.endsWith('job');
    const done = job ? count.complete : count.running;
    const prefix = `${service.stack}_`;
    const name = service.stack && service.name.startsWith(prefix) ? service.name.slice(prefix.length) : service.name;
    this.swatch.className = `swatch h${state.hues.get(this.id) ?? 0}`;
    text(this.name, name);
    text(this.ports, service.ports.map((port) => `:${port.published}`).join(' '));
    text(this.count, `${done}/${count.wanted}`);
    const progress = progressOf(state, service);
    const health = progress?.going ? 'updating' : count.failed ? 'failed' : done < count.wanted ? 'short' : 'well';
    attribute(this.button, 'data-health', health);
    attribute(this.button, 'data-name', service.name);
    const share = progress?.going ? progress.fresh / Math.max(1, progress.wanted) : done / Math.max(1, count.wanted);
    this.bar.style.transform = `scaleX(${Math.min(1, share)})`;
    const words = { updating: ', is updated', failed: ', has failed tasks', short: ', not all run', well: '' }[health];
    attribute(this.button, 'aria-label', `${service.name}, ${done} of ${count.wanted} ${job ? 'complete' : 'running'}${words}`);
  }
}

/** The last happenings, newest first, at most every 400 ms. */
export class Activity {
  constructor(root, filter = () => true) {
    this.root = root;
    this.filter = filter;
    this.next = 0;
  }

  render(state, dirty) {
    this.state = state;
    if (this.timer || !(dirty.feed || dirty.all)) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.draw(this.state);
    }, Math.max(0, this.next - performance.now()));
  }

  draw(state) {
    this.next = performance.now() + 400;
    const entries = [];
    for (let at = state.feed.length - 1; at >= 0 && entries.length < SHOWN; at--) {
      if (this.filter(state.feed[at])) entries.push(state.feed[at]);
    }
    keyed(
      this.root,
      entries,
      (entry) => `${entry.at} ${entry.id} ${entry.action}`,
      (entry) => {
        const hue = state.hues.get(entry.service);
        const swatch = h('i', { class: hue === undefined ? 'swatch' : `swatch h${hue}` });
        const said = sentence(entry);
        return h('li', { 'data-kind': entry.kind, 'data-action': entry.action }, swatch, h('time', {}, clock(entry.at)), h('span', { title: said }, said));
      },
      () => {},
    );
  }
}
