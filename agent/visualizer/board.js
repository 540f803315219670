// The hosts as columns and their tasks as tiles. A tile stays the same element for as long as its
// task stays on its host; only what changed is touched, and no frame is asked to do too much.

import { attribute, h, text } from './dom.js';
import { compareNames, countNode, onBoard, orderNodes, phaseOf, taskName } from './model.js';
import { bytes, cpus, plural, share, shortImage } from './words.js';

/** Pixels from one dot to the next, and between them; style.css has the same. */
const DOT_STEP = 14;
const DOT_GAP = 3;
/** Milliseconds of one frame that placing tiles may take. */
const BUDGET = 12;
/** More tiles than this in one frame come and go without a movement; dots always do, because each
    movement is a layer of its own for the browser. */
const CALM = 40;

export class Board {
  /** `open` is called with what was chosen: `task` or `node`, and its id. */
  constructor(root, open) {
    this.root = root;
    this.open = open;
    this.columns = new Map();
    this.tiles = new Map();
    this.pending = new Set();
    this.choice = 'auto';
    this.density = null;
    this.matches = null;
    this.rows = 0;
    // Told, never asked for: to ask would lay out the page in the middle of a frame.
    this.widths = new ResizeObserver(([entry]) => {
      this.rootWidth = entry.contentRect.width;
      this.measure();
    });
    this.widths.observe(root);
    this.marks = new CSSStyleSheet();
    document.adoptedStyleSheets.push(this.marks);
    root.addEventListener('click', (event) => this.choose(event));
    root.addEventListener('keydown', (event) => this.move(event));
    root.addEventListener('focusin', (event) => this.rove(event.target));
  }

  /** Whether there is more to do in the next frame. */
  get busy() {
    return this.pending.size > 0;
  }

  render(state, dirty) {
    this.state = state;
    if (dirty.all) {
      for (const id of this.tiles.keys()) this.pending.add(id);
      for (const id of state.tasks.keys()) this.pending.add(id);
    } else for (const id of dirty.tasks) this.pending.add(id);
    if (dirty.all || this.density === null) this.densify();
    if (dirty.all || this.changesColumns(dirty.nodes)) this.arrange();
    else for (const id of dirty.nodes) this.columns.get(id)?.describe(state);
    for (const id of dirty.services) this.renamed(id);
    if (dirty.all || dirty.nodes.size) this.measure();
    this.place();
  }

  changesColumns(ids) {
    for (const id of ids) {
      if (id === '') {
        if (this.columns.has('') !== this.anyWaiting()) return true;
      } else if (this.state.nodes.has(id) !== this.columns.has(id)) return true;
      else if (this.state.nodes.has(id) && this.columns.get(id).role !== this.state.nodes.get(id).role) return true;
    }
    return false;
  }

  anyWaiting() {
    for (const id of this.state.byNode.get('') ?? []) if (onBoard(this.state, this.state.tasks.get(id))) return true;
    return false;
  }

  /** Columns in their order; those of hosts that are gone go. */
  arrange() {
    const { state } = this;
    const wanted = orderNodes(state).map((node) => node.id);
    // At the end, where its coming and going moves no other.
    if (this.anyWaiting()) wanted.push('');
    for (const [id, column] of this.columns) {
      if (wanted.includes(id)) continue;
      for (const tile of column.tiles) this.tiles.delete(tile.id);
      column.element.remove();
      this.columns.delete(id);
    }
    this.root.style.setProperty('--hosts', String(Math.max(1, wanted.length)));
    let place = this.root.firstElementChild;
    for (const id of wanted) {
      let column = this.columns.get(id);
      if (!column) {
        column = new Column(id);
        this.columns.set(id, column);
        for (const task of state.byNode.get(id) ?? []) this.pending.add(task);
      }
      if (column.element === place) place = place.nextElementSibling;
      else this.root.insertBefore(column.element, place);
      column.describe(state);
    }
    if (!this.root.querySelector('[tabindex="0"]')) this.root.querySelector('.host-name')?.setAttribute('tabindex', '0');
  }

  /**
   * Dots have boxes of one height for all hosts, so that a task that comes or goes lays out nothing
   * but its own box. They grow when one is full, and shrink when none is half full.
   */
  measure() {
    if (this.density !== 'dots' || !this.rootWidth || !this.columns.size) return;
    let most = 0;
    for (const column of this.columns.values()) most = Math.max(most, this.state.byNode.get(column.id)?.size ?? 0);
    if (this.width !== this.rootWidth) {
      this.width = this.rootWidth;
      const body = this.columns.values().next().value?.body;
      this.perRow = Math.max(1, Math.floor(((body?.clientWidth ?? 128) + DOT_GAP) / DOT_STEP));
    }
    const needed = Math.max(3, Math.ceil(most / this.perRow));
    if (needed <= this.rows && needed > this.rows / 2) return;
    this.rows = needed + 1;
    this.root.style.setProperty('--rows', String(this.rows));
  }

  /** Places pending tiles until the frame's share is used up. */
  place() {
    const end = performance.now() + BUDGET;
    const calm = this.density === 'dots' || this.pending.size > CALM;
    for (const id of this.pending) {
      this.pending.delete(id);
      this.settle(id, calm);
      if (performance.now() > end) break;
    }
  }

  settle(id, calm) {
    const { state } = this;
    const task = state.tasks.get(id);
    const shown = task && onBoard(state, task);
    let tile = this.tiles.get(id);
    const column = shown ? this.columns.get(task.node) : undefined;
    if (tile && tile.column !== column) {
      tile.column.take(tile, calm);
      this.tiles.delete(id);
      tile = undefined;
    }
    if (!column) return;
    if (!tile) {
      tile = new Tile(id, this.density, state.hues.get(task.service) ?? 0, task.service);
      this.tiles.set(id, tile);
      tile.describe(state, task);
      column.put(tile, calm);
    } else tile.describe(state, task);
    attribute(tile.element, 'data-miss', this.matches && !this.matches(task) ? '' : null);
  }

  /** A service came to be known, or has another name. */
  renamed(id) {
    const hue = this.state.hues.get(id);
    for (const task of this.state.byService.get(id) ?? []) {
      const tile = this.tiles.get(task);
      if (tile && tile.hue !== hue) this.pending.add(task);
    }
  }

  /** `auto`, `cards`, `chips` or `dots`. */
  dense(choice) {
    this.choice = choice;
    this.densify();
  }

  densify() {
    if (!this.state) return;
    const hosts = this.state.nodes.size;
    const tasks = this.state.tasks.size;
    const auto = tasks <= 80 && hosts <= 12 ? 'cards' : tasks <= 600 && hosts <= 30 ? 'chips' : 'dots';
    const density = this.choice === 'auto' ? auto : this.choice;
    if (density === this.density) return;
    this.density = density;
    this.width = 0;
    this.root.dataset.density = density;
    // Dots have no words in them, so the elements are not the same.
    for (const column of this.columns.values()) column.clear();
    for (const id of this.tiles.keys()) this.pending.add(id);
    this.tiles.clear();
  }

  /** Dims what does not match; null shows everything. Gives the matches and their hosts. */
  search(matches) {
    this.matches = matches;
    attribute(this.root, 'data-searching', matches ? '' : null);
    let count = 0;
    const hosts = new Set();
    for (const [id, tile] of this.tiles) {
      const task = this.state.tasks.get(id);
      const hit = !matches || (task && matches(task));
      attribute(tile.element, 'data-miss', hit ? null : '');
      if (hit) {
        count++;
        hosts.add(tile.column);
      }
    }
    for (const column of this.columns.values()) attribute(column.element, 'data-miss', matches && !hosts.has(column) ? '' : null);
    return { count, hosts: hosts.size };
  }

  /**
   * Brings one service or one task to the fore: one rule instead of thousands of attributes. Dots
   * pale by their colour, because thousands of translucent ones would be thousands of layers.
   */
  highlight(kind, id) {
    const rule = {
      service: `.board:not([data-density="dots"]) .tile:not([data-s="${id}"]) { opacity: .18; }
        .board[data-density="dots"] .tile:not([data-s="${id}"]) { --full: var(--pale); }`,
      task: `.board .tile[data-task="${id}"] { outline: 2px solid var(--ink); outline-offset: 2px; }`,
      node: `.board .host:not([data-node="${id}"]) { opacity: .35; }`,
    }[kind];
    this.marks.replaceSync(rule ?? '');
  }

  choose(event) {
    const tile = event.target.closest('.tile');
    if (tile) this.open('task', tile.dataset.task, tile);
    else if (event.target.closest('.host-name')) {
      const host = event.target.closest('.host');
      if (host.dataset.node) this.open('node', host.dataset.node, event.target);
    }
  }

  /** The whole board is one stop of the tab key; arrows move within. */
  rove(target) {
    if (!target.matches('.tile, .host-name')) return;
    for (const old of this.root.querySelectorAll('[tabindex="0"]')) if (old !== target) old.tabIndex = -1;
    target.tabIndex = 0;
  }

  move(event) {
    const from = event.target.closest('.tile, .host-name');
    if (!from || event.altKey || event.ctrlKey || event.metaKey) return;
    const items = (host) => [...host.querySelectorAll('.host-name, .tile:not([data-leaving])')];
    const host = from.closest('.host');
    const own = items(host);
    const at = own.indexOf(from);
    const neighbour = (next) => {
      if (!next) return undefined;
      const there = items(next);
      return there[Math.min(at, there.length - 1)];
    };
    const to = {
      ArrowRight: own[at + 1],
      ArrowLeft: own[at - 1],
      ArrowDown: neighbour(host.nextElementSibling),
      ArrowUp: neighbour(host.previousElementSibling),
      Home: own[0],
      End: own.at(-1),
    }[event.key];
    if (!to) return;
    event.preventDefault();
    to.focus();
  }
}

class Column {
  constructor(id) {
    this.id = id;
    this.tiles = [];
    this.name = h('button', { class: 'host-name', tabindex: '-1', type: 'button' });
    this.role_ = h('span', { class: 'role' });
    this.use = h('span', { class: 'use' });
    this.badge = h('span', { class: 'badge' });
    this.count = h('span', { class: 'count' });
    this.cpu = meter('processors reserved');
    this.memory = meter('memory reserved');
    this.body = h('div', { class: 'tiles' });
    this.element = h(
      'section',
      { class: 'host', 'data-node': id },
      h('header', {}, h('h3', {}, this.name), this.badge, this.count, h('div', { class: 'about' }, this.role_, this.use), h('div', { class: 'meters' }, this.cpu.element, this.memory.element)),
      this.body,
    );
  }

  describe(state) {
    const node = state.nodes.get(this.id);
    if (!node) {
      text(this.name, 'No host yet');
      text(this.count, String(this.tiles.length));
      this.element.dataset.state = 'waiting';
      this.element.setAttribute('aria-label', 'Tasks that wait for a host');
      return;
    }
    const use = countNode(state, this.id);
    this.role = node.role;
    text(this.name, node.name);
    const role = node.leader ? 'leader' : node.role;
    text(this.role_, role);
    attribute(this.role_, 'data-role', role);
    attribute(this.element, 'data-role', role);
    text(this.use, use.cpus || use.memory ? `${cpus(use.cpus)}/${cpus(node.cpus)} cpu · ${share(use.memory, node.memory)}` : `${cpus(node.cpus)} cpu · ${bytes(node.memory)}`);
    const trouble = node.state !== 'ready' ? node.state : node.availability !== 'active' ? node.availability : '';
    text(this.badge, trouble);
    attribute(this.badge, 'hidden', trouble ? null : '');
    text(this.count, String(use.tasks));
    attribute(this.count, 'title', plural(use.tasks, 'task'));
    attribute(this.element, 'data-state', node.state);
    attribute(this.element, 'data-availability', node.availability);
    attribute(this.element, 'data-name', node.name);
    attribute(this.element, 'aria-label', `${node.name}, ${role}, ${trouble || 'ready'}, ${plural(use.tasks, 'task')}`);
    this.cpu.set(use.cpus / node.cpus, `${cpus(use.cpus)} of ${cpus(node.cpus)} cpu`);
    this.memory.set(use.memory / node.memory, `${bytes(use.memory)} of ${bytes(node.memory)}`);
  }

  put(tile, calm) {
    const { tiles } = this;
    let low = 0;
    let high = tiles.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(tiles[middle], tile) < 0) low = middle + 1;
      else high = middle;
    }
    this.body.insertBefore(tile.element, tiles[low]?.element ?? null);
    tiles.splice(low, 0, tile);
    tile.column = this;
    if (!calm) tile.element.classList.add('arrives');
  }

  take(tile, calm) {
    const at = this.tiles.indexOf(tile);
    if (at >= 0) this.tiles.splice(at, 1);
    const { element } = tile;
    if (element === document.activeElement) (this.tiles[at] ?? this.tiles[at - 1])?.element.focus() ?? this.name.focus();
    if (calm) {
      element.remove();
      return;
    }
    element.dataset.leaving = '';
    element.tabIndex = -1;
    // Where nothing moves there is no end of a movement.
    setTimeout(() => element.remove(), 260);
  }

  clear() {
    this.tiles = [];
    this.body.replaceChildren();
  }
}

function compare(a, b) {
  return compareNames(a.service, b.service) || a.slot - b.slot || a.created - b.created || (a.id < b.id ? -1 : 1);
}

const CARD = h('button', { class: 'tile', type: 'button', tabindex: '-1' }, h('i', { class: 'mark' }), h('b'), h('small'));
const DOT = h('button', { class: 'tile', type: 'button', tabindex: '-1' });

class Tile {
  constructor(id, density, hue, service) {
    this.id = id;
    this.hue = hue;
    this.column = null;
    this.worded = density !== 'dots';
    this.element = (this.worded ? CARD : DOT).cloneNode(true);
    this.element.dataset.task = id;
    this.element.dataset.s = service;
    this.element.classList.add(`h${hue}`);
  }

  describe(state, task) {
    const { element } = this;
    const name = taskName(state, task);
    const phase = phaseOf(task);
    const hue = state.hues.get(task.service) ?? 0;
    if (hue !== this.hue) {
      element.classList.replace(`h${this.hue}`, `h${hue}`);
      this.hue = hue;
    }
    // Keys of the order; they do not change while the task stays where it is.
    this.service = state.services.get(task.service)?.name ?? '';
    this.slot = task.slot;
    this.created = task.created;
    attribute(element, 'data-phase', phase);
    attribute(element, 'data-name', name);
    attribute(element, 'aria-label', `${name}, ${phase}${task.error ? `: ${task.error}` : ''}, ${shortImage(task.image)}`);
    if (this.worded) {
      text(element.children[1], name);
      const said = phase === 'running' ? shortImage(task.image) : task.error || (phase === 'waiting' && task.message) || `${phase} · ${shortImage(task.image)}`;
      text(element.children[2], said);
    }
  }
}

function meter(label) {
  const bar = h('i');
  const element = h('div', { class: 'meter', role: 'meter', 'aria-label': label, 'aria-valuemin': '0', 'aria-valuemax': '100' }, bar);
  return {
    element,
    set(share, said) {
      const part = Number.isFinite(share) ? Math.min(1, share) : 0;
      const percent = String(Math.round(part * 100));
      if (element.getAttribute('aria-valuenow') === percent && element.title === said) return;
      element.setAttribute('aria-valuenow', percent);
      element.setAttribute('aria-valuetext', said);
      element.title = said;
      bar.style.transform = `scaleX(${part})`;
      attribute(element, 'data-full', part > 0.9 ? '' : null);
    },
  };
}
