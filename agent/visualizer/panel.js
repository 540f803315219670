// The page of one service, task, host or network, beside the picture.

import { attribute, h, keyed, text } from './dom.js';
import { ask } from './feed.js';
import { LogView } from './logs.js';
import { compareNames, countNode, countService, nodesOn, phaseOf, progressOf, servicesOn, taskName } from './model.js';
import { Activity } from './services.js';
import { ago, bytes, cpus, plural, port } from './words.js';

/** Rows of a table of tasks; those that live come first. */
const ROWS = 100;
/** Milliseconds between two drawings of what changes all the time. */
const PAUSE = 300;

export class Panel {
  /** `open(kind, id)` goes to another page, `close()` to none. */
  constructor(root, { open, close }) {
    this.root = root;
    this.open = open;
    this.subject = null;
    this.title = h('h2', { tabindex: '-1', id: 'panel-title' });
    this.kind = h('p', { class: 'kind' });
    this.body = h('div', { class: 'panel-body' });
    const button = h('button', { type: 'button', class: 'close', 'aria-label': 'Close', onclick: close }, '✕');
    root.append(h('header', {}, this.kind, this.title, button), this.body);
    root.addEventListener('click', (event) => {
      const link = event.target.closest('[data-open]');
      if (!link) return;
      const [kind, id] = link.dataset.open.split('/');
      open(kind, id);
    });
  }

  /** Shows a subject (kind and id), or nothing. */
  show(state, subject) {
    this.part?.close?.();
    this.subject = subject;
    this.part = null;
    this.root.hidden = !subject;
    document.body.classList.toggle('with-panel', Boolean(subject));
    if (!subject) return;
    this.body.replaceChildren();
    this.body.scrollTop = 0;
    const Part = { service: ServicePart, task: TaskPart, node: NodePart, network: NetworkPart }[subject.kind];
    this.part = new Part(this.body, subject.id);
    this.root.dataset.kind = subject.kind;
    this.draw(state);
    this.part.activity?.draw(state);
  }

  render(state, dirty) {
    if (!this.part) return;
    this.state = state;
    this.part.activity?.render(state, dirty);
    const concerned = dirty.all || this.part.concerns(state, dirty);
    if (!concerned || this.timer) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.part) this.draw(this.state);
    }, PAUSE);
  }

  draw(state) {
    const { title, kind } = this.part.draw(state);
    text(this.title, title);
    text(this.kind, kind);
  }
}

/** A list of names and values; values may be elements. */
function facts(list, pairs) {
  keyed(
    list,
    pairs.filter(([, value]) => value !== '' && value != null),
    ([name]) => name,
    ([name]) => h('div', {}, h('dt', {}, name), h('dd')),
    (element, [, value]) => {
      const place = element.lastElementChild;
      // The same names lead to the same places: what is equal is left as it stands.
      if (value instanceof Node) {
        if (place.textContent !== value.textContent) place.replaceChildren(value);
      } else text(place, String(value));
    },
  );
}

function links(items) {
  const place = h('span', { class: 'links' });
  for (const { kind, id, name } of items) place.append(h('button', { type: 'button', class: 'link', 'data-open': `${kind}/${id}` }, name));
  return place;
}

function section(title, ...children) {
  return h('section', {}, h('h3', {}, title), ...children);
}

const ORDER = ['failed', 'waiting', 'starting', 'stopping', 'running', 'complete', 'stopped'];

/** Tasks as rows: those in trouble first, ended ones last. */
function tasksTable(place, state, tasks, named) {
  const rank = (task) => {
    const phase = phaseOf(task);
    return phase === 'failed' && task.desired !== 'running' ? ORDER.length : ORDER.indexOf(phase);
  };
  const sorted = tasks
    .map((task) => ({ task, rank: rank(task), service: state.services.get(task.service)?.name ?? '' }))
    .sort((a, b) => a.rank - b.rank || (a.service === b.service ? 0 : compareNames(a.service, b.service)) || a.task.slot - b.task.slot || b.task.created - a.task.created)
    .map(({ task }) => task);
  keyed(
    place,
    sorted.slice(0, ROWS),
    (task) => task.id,
    (task) => h('li', {}, h('button', { type: 'button', class: 'row', 'data-open': `task/${task.id}`, 'data-task': task.id }, h('i', { class: 'mark' }), h('b'), h('span'), h('small'))),
    (element, task) => {
      const row = element.firstElementChild;
      const phase = phaseOf(task);
      row.className = `row h${state.hues.get(task.service) ?? 0}`;
      attribute(row, 'data-phase', phase);
      text(row.children[1], taskName(state, task));
      text(row.children[2], named === 'host' ? state.nodes.get(task.node)?.name ?? 'no host yet' : task.state);
      text(row.children[3], task.error || (named === 'host' ? task.state : ''));
    },
  );
  place.parentElement.querySelector('.more')?.remove();
  if (sorted.length > ROWS) place.after(h('p', { class: 'more' }, `and ${sorted.length - ROWS} more`));
}

class ServicePart {
  constructor(body, id) {
    this.id = id;
    this.facts = h('dl', { class: 'facts' });
    this.progress = h('div', { class: 'progress', role: 'progressbar', 'aria-label': 'Update', 'aria-valuemin': '0' }, h('i'), h('span'));
    this.tasks = h('ul', { class: 'rows' });
    this.events = h('ol', { class: 'activity' });
    this.logs = h('div', { class: 'logs', tabindex: '0', role: 'log', 'aria-label': 'Logs', 'aria-live': 'off' });
    this.activity = new Activity(this.events, (entry) => entry.service === id);
    body.append(this.progress, this.facts, section('Tasks', this.tasks), section('Logs', this.logs), section('Events', this.events));
    this.view = new LogView(this.logs, (task) => ({ name: this.nameOf(task), hue: this.state?.hues.get(id) ?? 0, known: this.state?.tasks.has(task) }));
    this.view.open(`services/${encodeURIComponent(id)}`);
  }

  nameOf(task) {
    const known = this.state?.tasks.get(task);
    if (!known) return task.slice(0, 6);
    return known.slot ? String(known.slot) : this.state.nodes.get(known.node)?.name ?? task.slice(0, 6);
  }

  concerns(state, dirty) {
    return dirty.services.has(this.id);
  }

  draw(state) {
    this.state = state;
    this.view.rename();
    const service = state.services.get(this.id);
    if (!service) return { title: 'This service is gone', kind: 'service' };
    const count = countService(state, this.id);
    const networks = service.networks.map((target) => {
      const network = state.networks.get(target) ?? [...state.networks.values()].find((one) => one.name === target);
      return { kind: 'network', id: network?.id ?? target, name: network?.name ?? target };
    });
    const progress = progressOf(state, service);
    this.progress.hidden = !progress;
    if (progress) {
      attribute(this.progress, 'data-state', progress.state);
      attribute(this.progress, 'aria-valuemax', String(progress.wanted));
      attribute(this.progress, 'aria-valuenow', String(progress.fresh));
      const part = progress.going ? progress.fresh / Math.max(1, progress.wanted) : 1;
      this.progress.firstElementChild.style.transform = `scaleX(${part})`;
      const state_ = progress.state.replaceAll('_', ' ');
      text(this.progress.lastElementChild, progress.going ? `${state_}: ${progress.fresh} of ${progress.wanted}` : `${state_}${progress.message ? ` · ${progress.message}` : ''}`);
    }
    facts(this.facts, [
      ['Running', `${count.running} of ${count.wanted}${count.complete ? `, ${count.complete} complete` : ''}`],
      ['Image', service.image],
      ['Mode', service.mode],
      ['Stack', service.stack],
      ['Ports', service.ports.map((one) => port(one) + (one.mode === 'host' ? ' (host)' : '')).join(', ')],
      ['Networks', networks.length ? links(networks) : ''],
      ['Addresses', service.addresses.map(({ address }) => address.replace(/\/\d+$/, '')).join(', ')],
      ['Reserves', [service.cpus && `${cpus(service.cpus)} cpu`, service.memory && bytes(service.memory)].filter(Boolean).join(', ').replace(/.$/, '$& each')],
      ['Placement', service.constraints.join(', ')],
      ['Age', ago(service.created, Date.now())],
    ]);
    const tasks = [...(state.byService.get(this.id) ?? [])].map((id) => state.tasks.get(id));
    tasksTable(this.tasks, state, tasks, 'host');
    return { title: service.name, kind: 'service' };
  }

  close() {
    this.view.close();
  }
}

class TaskPart {
  constructor(body, id) {
    this.id = id;
    this.facts = h('dl', { class: 'facts' });
    this.events = h('ol', { class: 'activity' });
    this.logs = h('div', { class: 'logs', tabindex: '0', role: 'log', 'aria-label': 'Logs', 'aria-live': 'off' });
    this.activity = new Activity(this.events, (entry) => entry.id === id);
    body.append(this.facts, section('Logs', this.logs), section('Events', this.events));
    this.view = new LogView(this.logs, () => ({ name: '', hue: 0, known: true }));
    this.view.open(`tasks/${encodeURIComponent(id)}`);
    this.attachments = '';
    this.more();
  }

  /** What the picture does not need, and so does not hold for thousands of tasks. */
  async more() {
    try {
      const view = await ask(`tasks/${encodeURIComponent(this.id)}`);
      this.attachments = (view.NetworksAttachments ?? []).map((one) => `${one.Network?.Spec?.Name ?? ''} ${one.Addresses?.join(' ') ?? ''}`).join(', ');
      this.container = view.Status?.ContainerStatus?.ContainerID?.slice(0, 12) ?? '';
      if (this.state) this.draw(this.state);
    } catch {
      // The task is gone: what is known of it stays.
    }
  }

  concerns(state, dirty) {
    return dirty.tasks.has(this.id);
  }

  draw(state) {
    this.state = state;
    const task = state.tasks.get(this.id);
    if (!task) return { title: 'This task is gone', kind: 'task' };
    if (task.state === 'running' && !this.container && !this.asked) {
      this.asked = true;
      this.more();
    }
    const service = state.services.get(task.service);
    const node = state.nodes.get(task.node);
    facts(this.facts, [
      ['State', task.state + (phaseOf(task) === 'stopping' ? ', asked to stop' : '')],
      ['Since', `${ago(task.since, Date.now())}`],
      ['Error', task.error],
      ['Message', task.message === task.state || task.error ? '' : task.message],
      ['Service', service ? links([{ kind: 'service', id: service.id, name: service.name }]) : ''],
      ['Host', node ? links([{ kind: 'node', id: node.id, name: node.name }]) : 'none yet'],
      ['Image', task.image],
      ['Networks', this.attachments],
      ['Container', this.container],
      ['Id', task.id],
    ]);
    return { title: taskName(state, task), kind: 'task' };
  }

  close() {
    this.view.close();
  }
}

class NodePart {
  constructor(body, id) {
    this.id = id;
    this.facts = h('dl', { class: 'facts' });
    this.tasks = h('ul', { class: 'rows' });
    this.events = h('ol', { class: 'activity' });
    this.activity = new Activity(this.events, (entry) => entry.node === id);
    body.append(this.facts, section('Tasks', this.tasks), section('Events', this.events));
  }

  concerns(state, dirty) {
    return dirty.nodes.has(this.id);
  }

  draw(state) {
    const node = state.nodes.get(this.id);
    if (!node) return { title: 'This host is gone', kind: 'host' };
    const use = countNode(state, this.id);
    const networks = [...state.networks.values()].filter((network) => nodesOn(state, network).includes(this.id));
    facts(this.facts, [
      ['Role', node.leader ? 'manager, leads' : node.role],
      ['State', node.state + (node.message ? `: ${node.message}` : '')],
      ['Availability', node.availability],
      ['Address', node.address],
      ['Tasks', `${use.running} of ${use.tasks} running`],
      ['Processors', `${cpus(use.cpus)} of ${cpus(node.cpus)} reserved`],
      ['Memory', `${bytes(use.memory)} of ${bytes(node.memory)} reserved`],
      ['Networks', networks.length ? links(networks.map((one) => ({ kind: 'network', id: one.id, name: one.name }))) : ''],
      ['Labels', Object.entries(node.labels).map(([key, value]) => `${key}=${value}`).join(', ')],
      ['Platform', node.platform],
      ['ovnd', node.engine],
    ]);
    const tasks = [...(state.byNode.get(this.id) ?? [])].map((id) => state.tasks.get(id));
    tasksTable(this.tasks, state, tasks, 'state');
    return { title: node.name, kind: 'host' };
  }
}

class NetworkPart {
  constructor(body, id) {
    this.id = id;
    this.facts = h('dl', { class: 'facts' });
    body.append(this.facts);
  }

  concerns() {
    return true;
  }

  draw(state) {
    const network = state.networks.get(this.id);
    if (!network) return { title: 'This network is gone', kind: 'network' };
    const services = servicesOn(state, network);
    const hosts = nodesOn(state, network).map((id) => state.nodes.get(id)).filter(Boolean);
    const words = [network.attachable && 'attachable', network.internal && 'internal', network.encrypted && 'encrypted', network.ingress && 'published ports'];
    facts(this.facts, [
      ['Driver', network.driver],
      ['Subnets', network.subnets.join(', ')],
      ['Kind', words.filter(Boolean).join(', ')],
      ['Stack', network.stack],
      ['Services', services.length ? links(services.map((one) => ({ kind: 'service', id: one.id, name: one.name }))) : 'none'],
      ['Hosts', hosts.length ? links(hosts.map((one) => ({ kind: 'node', id: one.id, name: one.name }))) : 'none'],
      ['Tunnels', `${plural((hosts.length * (hosts.length - 1)) / 2, 'tunnel')} between the hosts`],
    ]);
    return { title: network.name, kind: 'network' };
  }
}
