// Puts the page together: events become states, states become pictures, at most one a frame.

import { Board } from './board.js';
import { attribute, h, text } from './dom.js';
import { Feed } from './feed.js';
import { countService, empty, matcher, phaseOf, reduce, taskName } from './model.js';
import { NetworkView } from './networks.js';
import { Panel } from './panel.js';
import { Activity, ServiceList } from './services.js';
import { plural, shortImage } from './words.js';

/** Actions that one frame takes, or an eighth of those that wait: a burst, or a browser that had no
    time, becomes several short frames instead of a long one, and nothing waits for long. */
const BATCH = 24;
const SHARE = 8;
/** A task that waits so long may have a reason to, which no event tells. */
const PATIENCE = 2000;

const place = (id) => document.getElementById(id);

let state = empty();
let queue = [];
let scheduled = false;
let subject = null;
let opener = null;

const board = new Board(place('board'), go);
const services = new ServiceList(place('services'), (kind, id, from) => (subject?.id === id ? leave() : go(kind, id, from)));
const activity = new Activity(place('activity'));
const panel = new Panel(place('panel'), { open: go, close: leave });
const networks = new NetworkView(place('networks'), go);
const feed = new Feed((actions) => {
  for (const action of actions) queue.push(action);
  schedule();
});

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(frame);
}

function frame() {
  scheduled = false;
  if (queue.length || !board.busy) {
    state = reduce(state, queue.splice(0, Math.max(BATCH, Math.ceil(queue.length / SHARE))));
    const { dirty } = state;
    if (state.wanted.size) feed.look(state.wanted);
    if (state.stale && state.link.phase === 'live') feed.resync();
    if (dirty.link || dirty.all) showLink();
    if (dirty.all && board.matches) board.matches = matcher(state, place('search').value);
    board.render(state, dirty);
    services.render(state, dirty, subject?.kind === 'service' ? subject.id : null);
    activity.render(state, dirty);
    networks.render(state, dirty);
    panel.render(state, dirty);
    if (dirty.all || dirty.nodes.size || dirty.services.size) totals(dirty);
    if (dirty.all && subject) panel.show(state, subject);
    askWhy(dirty);
  } else board.place();
  if (queue.length || board.busy) schedule();
}

/** Asks why tasks wait, once each. */
const asked = new Set();
function askWhy(dirty) {
  if (dirty.all || !dirty.nodes.has('')) return;
  setTimeout(() => {
    const waiting = [...(state.byNode.get('') ?? [])].filter((id) => !asked.has(id) && phaseOf(state.tasks.get(id)) === 'waiting');
    for (const id of waiting.slice(0, 20)) asked.add(id);
    feed.look(waiting.slice(0, 20).map((id) => `task/${id}`));
  }, PATIENCE);
}

/** Counts of the services, kept because a frame changes few of them. */
let counts = new Map();
function totals(dirty) {
  if (dirty.all) counts = new Map();
  for (const id of dirty.all ? state.services.keys() : dirty.services) {
    if (state.services.has(id)) counts.set(id, countService(state, id));
    else counts.delete(id);
  }
  let ready = 0;
  for (const node of state.nodes.values()) if (node.state === 'ready') ready++;
  let running = 0;
  let failed = 0;
  let wanted = 0;
  for (const [id, count] of counts) {
    running += count.running;
    failed += count.failed;
    if (!state.services.get(id).mode.endsWith('job')) wanted += count.wanted;
  }
  text(place('total-hosts'), ready === state.nodes.size ? String(ready) : `${ready}/${state.nodes.size}`);
  text(place('hosts-word'), state.nodes.size === 1 ? 'host' : 'hosts');
  text(place('total-services'), String(state.services.size));
  text(place('services-word'), state.services.size === 1 ? 'service' : 'services');
  text(place('total-tasks'), `${running}/${Math.max(wanted, running)}`);
  text(place('total-failed'), String(failed));
  attribute(place('total-failed').parentElement, 'hidden', failed ? null : '');
  wait();
  attribute(place('empty'), 'hidden', state.nodes.size || state.link.phase !== 'live' ? '' : null);
}

/** Tasks that have waited for a host for a while; that they all wait a moment is no news. */
let waits;
function wait() {
  waits ??= setTimeout(() => {
    waits = undefined;
    const now = Math.max(state.seen / 1e6, Date.now());
    let slow = 0;
    for (const id of state.byNode.get('') ?? []) {
      const task = state.tasks.get(id);
      if (phaseOf(task) === 'waiting' && now - task.created > PATIENCE) slow++;
    }
    text(place('total-waiting'), String(slow));
    attribute(place('total-waiting').parentElement, 'hidden', slow ? null : '');
  }, 1000);
}

function showLink() {
  const { phase, note } = state.link;
  const link = place('link');
  attribute(link, 'data-phase', phase);
  attribute(document.body, 'data-link', phase);
  text(link.lastElementChild, { live: 'live', connecting: 'connecting', away: 'reconnecting' }[phase]);
  attribute(link, 'title', note || null);
  const banner = place('banner');
  attribute(banner, 'hidden', phase === 'away' ? null : '');
  if (phase === 'away') text(banner, state.nodes.size ? `This is the last that was seen: ${note}. Trying again.` : `${note} Trying again.`);
}

// Where one is

/** Goes to the page of a service, task, node or network. */
function go(kind, id, from) {
  opener = from ?? opener;
  location.hash = `${kind}=${id}`;
}

function leave() {
  history.pushState(null, '', location.pathname);
  arrive();
  if (opener?.isConnected) opener.focus();
  opener = null;
}

function arrive() {
  const match = /^#(service|task|node|network)=([\w.-]+)$/.exec(location.hash);
  subject = match ? { kind: match[1], id: match[2] } : null;
  panel.show(state, subject);
  board.highlight(subject?.kind, subject?.id);
  services.render(state, { services: new Set() }, subject?.kind === 'service' ? subject.id : null);
  if (subject) place('panel-title').focus({ preventScroll: true });
}

function look(tab) {
  for (const button of document.querySelectorAll('[data-tab]')) attribute(button, 'aria-selected', String(button.dataset.tab === tab));
  place('board').hidden = tab !== 'hosts';
  place('networks').hidden = tab !== 'networks';
  networks.visible(tab === 'networks', state);
}

// What the keyboard and the pointer do

let searching;
function search() {
  clearTimeout(searching);
  searching = setTimeout(() => {
    const { value } = place('search');
    const { count, hosts } = board.search(matcher(state, value));
    text(place('found'), value.trim() ? `${plural(count, 'task')} on ${plural(hosts, 'host')}` : '');
  }, 80);
}

const THEMES = ['auto', 'light', 'dark'];
function theme(choice) {
  document.documentElement.dataset.theme = choice;
  const button = place('theme');
  attribute(button, 'aria-label', `Colours: ${choice}`);
  text(button.lastElementChild, choice);
  remember('theme', choice);
}

const DENSITIES = ['auto', 'cards', 'chips', 'dots'];
function density(choice) {
  board.dense(choice);
  const button = place('density');
  attribute(button, 'aria-label', `Tasks as: ${choice}`);
  text(button.lastElementChild, choice);
  remember('density', choice);
  schedule();
}

const after = (list, value) => list[(list.indexOf(value) + 1) % list.length];

function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A browser that keeps nothing shows the defaults next time.
  }
}

function remembered(key, list) {
  try {
    const value = localStorage.getItem(key);
    return list.includes(value) ? value : list[0];
  } catch {
    return list[0];
  }
}

/** The words of a dot, beside the pointer or the focus. */
const tip = h('div', { class: 'tip', role: 'presentation', hidden: true });
document.body.append(tip);
function showTip(element) {
  const tile = element?.closest?.('.tile');
  const task = tile && state.tasks.get(tile.dataset.task);
  tip.hidden = !task;
  if (!task) return;
  tip.replaceChildren(
    h('b', {}, taskName(state, task)),
    h('span', { class: 'phase' }, phaseOf(task)),
    h('small', {}, shortImage(task.image)),
    ...(task.error || task.message ? [h('small', {}, task.error || task.message)] : []),
  );
  const box = tile.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(innerWidth - own.width - 8, box.left + box.width / 2 - own.width / 2));
  const above = box.top - own.height - 8;
  tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(above < 8 ? box.bottom + 8 : above)}px)`;
}

place('board').addEventListener('pointerover', (event) => event.pointerType !== 'touch' && showTip(event.target));
place('board').addEventListener('pointerleave', () => showTip(null));
place('board').addEventListener('focusin', (event) => event.target.matches(':focus-visible') && showTip(event.target));
place('board').addEventListener('focusout', () => showTip(null));
place('search').addEventListener('input', search);
place('theme').addEventListener('click', () => theme(after(THEMES, document.documentElement.dataset.theme)));
place('density').addEventListener('click', () => density(after(DENSITIES, board.choice)));
place('tabs').addEventListener('click', (event) => event.target.dataset.tab && look(event.target.dataset.tab));
place('tabs').addEventListener('keydown', (event) => {
  if (event.key !== 'ArrowRight' && event.key !== 'ArrowLeft') return;
  const other = [...event.currentTarget.children].find((tab) => tab !== document.activeElement);
  other.focus();
  other.click();
});
place('keys').addEventListener('click', () => place('help').showModal());
addEventListener('hashchange', arrive);
addEventListener('popstate', arrive);
addEventListener('keydown', (event) => {
  const typing = event.target.matches('input');
  if (event.key === 'Escape') {
    if (typing && event.target.value) {
      event.target.value = '';
      search();
    } else if (typing) event.target.blur();
    else if (subject) leave();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const work = {
    '/': () => place('search').focus(),
    '?': () => place('help').showModal(),
    h: () => look('hosts'),
    n: () => look('networks'),
    t: () => place('theme').click(),
    d: () => place('density').click(),
  }[event.key];
  if (!work) return;
  event.preventDefault();
  work();
});
document.addEventListener('visibilitychange', () => {
  // A hidden page asks nothing and holds no connection; a browser has only six for a host.
  if (document.hidden) {
    feed.stop();
    networks.pause();
  } else {
    feed.start();
    if (!place('networks').hidden) networks.visible(true, state);
  }
});

theme(remembered('theme', THEMES));
density(remembered('density', DENSITIES));
arrive();
feed.start();
