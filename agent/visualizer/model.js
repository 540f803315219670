// What the page knows of the cluster, as plain data, and how it changes.
//
// `reduce` takes a state and a batch of actions and gives the next state; it reads no clock and
// touches nothing outside. The old state stays as it was: what changes is copied first.

/** Docker's states of a task, in the order in which a task passes through them. */
const STATES = [
  'new', 'pending', 'assigned', 'accepted', 'preparing', 'ready', 'starting', 'running',
  'complete', 'shutdown', 'failed', 'rejected', 'remove', 'orphaned',
];
const RANK = new Map(STATES.map((state, rank) => [state, rank]));
const RUNNING = RANK.get('running');

/** The state that an action of the event stream says a task has reached. */
const REACHED = {
  create: 'new', assigned: 'assigned', preparing: 'preparing', starting: 'starting',
  running: 'running', complete: 'complete', shutdown: 'shutdown', failed: 'failed',
};

/** How many colours there are; style.css has one class for each. */
export const HUES = 24;
/** How many happenings are remembered. */
const FEED = 250;

export const STACK_LABEL = 'com.docker.stack.namespace';

/**
 * @typedef {object} Action One of
 *   {type: 'lists', nodes, services, tasks, networks}: everything, as the API lists it;
 *   {type: 'event', event}: one message of /events;
 *   {type: 'asked', keys}: these wanted objects have been asked for;
 *   {type: 'object', kind, id, body}: one object as the API shows it, null when it is gone;
 *   {type: 'link', phase, note}: whether the event stream is there.
 */

/** A state in which nothing is known. */
export function empty() {
  return {
    link: { phase: 'connecting', note: '' },
    nodes: new Map(),
    services: new Map(),
    tasks: new Map(),
    networks: new Map(),
    /** Ids of tasks by node ('' while a task has none), and by service. */
    byNode: new Map(),
    byService: new Map(),
    /** Colour of each service. */
    hues: new Map(),
    /** Happenings, newest last. */
    feed: [],
    /** Time of the newest event in nanoseconds, as far as a number holds them. */
    seen: 0,
    /** Objects to be asked for again, `kind/id`; events tell less of them than the page shows. */
    wanted: new Set(),
    /** Whether the lists have to be read again. */
    stale: true,
    /** What this step changed. */
    dirty: changes(),
  };
}

function changes() {
  return {
    all: false, link: false, feed: false,
    nodes: new Set(), services: new Set(), tasks: new Set(), networks: new Set(),
  };
}

/** The state after `actions`, with what changed in `dirty`. */
export function reduce(state, actions) {
  const draft = { ...state, dirty: changes() };
  const own = new Set();
  /** The draft's own copy of a collection. */
  const write = (name) => {
    if (!own.has(name)) {
      own.add(name);
      const old = draft[name];
      draft[name] = Array.isArray(old) ? old.slice() : new old.constructor(old);
    }
    return draft[name];
  };
  /** The draft's own copy of one set of an index. */
  const bucket = (index, key) => {
    const map = write(index);
    const mark = `${index}/${key}`;
    if (!own.has(mark)) {
      own.add(mark);
      map.set(key, new Set(map.get(key)));
    }
    return map.get(key);
  };
  const step = { draft, own, write, bucket };
  for (const action of actions) apply(step, action);
  return draft;
}

function apply(step, action) {
  const { draft } = step;
  switch (action.type) {
    case 'lists':
      lists(step, action);
      break;
    case 'event':
      event(step, action.event);
      break;
    case 'object':
      object(step, action);
      break;
    case 'asked':
      for (const key of action.keys) step.write('wanted').delete(key);
      break;
    case 'link':
      draft.link = { phase: action.phase, note: action.note ?? '' };
      draft.dirty.link = true;
      break;
    default:
      throw new Error(`unknown action ${action.type}`);
  }
}

function lists(step, action) {
  const { draft, own } = step;
  const table = (views, read) => new Map(views.map((view) => {
    const item = read(view);
    return [item.id, item];
  }));
  // Nobody has seen these yet, so they may be written without a copy.
  for (const name of ['nodes', 'services', 'tasks', 'networks', 'byNode', 'byService', 'hues', 'wanted']) own.add(name);
  draft.nodes = table(action.nodes, readNode);
  draft.services = table(action.services, readService);
  draft.tasks = table(action.tasks, readTask);
  draft.networks = table(action.networks.filter((view) => view.Scope === 'swarm'), readNetwork);
  draft.byNode = new Map();
  draft.byService = new Map();
  const put = (index, key, id) => {
    const set = index.get(key);
    if (set) set.add(id);
    else index.set(key, new Set([id]));
  };
  for (const task of draft.tasks.values()) {
    put(draft.byNode, task.node, task.id);
    put(draft.byService, task.service, task.id);
  }
  for (const key of draft.byNode.keys()) own.add(`byNode/${key}`);
  for (const key of draft.byService.keys()) own.add(`byService/${key}`);
  draft.hues = new Map();
  const oldest = [...draft.services.values()].sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
  for (const service of oldest) paint(draft.hues, service);
  draft.wanted = new Set();
  draft.stale = false;
  draft.dirty.all = true;
}

/** A colour by the service's name, or the next one that nobody has. */
function paint(hues, service) {
  if (hues.has(service.id)) return;
  let hash = 2166136261;
  for (const char of service.name) hash = Math.imul(hash ^ char.codePointAt(0), 16777619) >>> 0;
  const taken = new Set(hues.values());
  let hue = hash % HUES;
  // Neighbours look alike: the steps are long, and meet all colours before one comes again.
  for (let tries = 0; taken.has(hue) && tries < HUES; tries++) hue = (hue + 7) % HUES;
  hues.set(service.id, hue);
}

function event(step, message) {
  const { draft } = step;
  const { Type: kind, Action: action, Actor: actor } = message;
  const id = actor?.ID ?? '';
  const about = actor?.Attributes ?? {};
  if (kind === 'daemon') {
    if (action === 'missed') draft.stale = true;
    return;
  }
  if (message.scope !== 'swarm') return;
  switch (kind) {
    case 'task':
      taskEvent(step, id, action, about, message);
      break;
    case 'service':
      if (action === 'remove') drop(step, 'services', id);
      else {
        const old = draft.services.get(id);
        const told = about['updatestate.new'];
        if (old && told) {
          const begins = told === 'updating' || told === 'rollback_started';
          const started = begins ? message.timeNano / 1e6 : old.update?.started ?? 0;
          set(step, 'services', { ...old, update: { completed: 0, ...old.update, message: '', state: told, started } });
        }
        step.write('wanted').add(`service/${id}`);
      }
      break;
    case 'node':
      if (action === 'remove') drop(step, 'nodes', id);
      else {
        const old = draft.nodes.get(id);
        if (old) {
          set(step, 'nodes', {
            ...old,
            state: about['state.new'] ?? old.state,
            availability: about['availability.new'] ?? old.availability,
            role: about['role.new'] ?? old.role,
          });
        }
        step.write('wanted').add(`node/${id}`);
      }
      break;
    case 'network':
      if (action === 'remove') drop(step, 'networks', id);
      else step.write('wanted').add(`network/${id}`);
      break;
    default:
      return;
  }
  remember(step, { kind, action, id, about, message });
}

function remember(step, { kind, action, id, about, message }) {
  const { draft } = step;
  const at = message.timeNano / 1e6;
  // The past is told again after each reconnection; what one commit brings has one time.
  if (message.timeNano < draft.seen) return;
  for (let place = draft.feed.length - 1; draft.feed[place]?.at === at; place--) {
    const told = draft.feed[place];
    if (told.kind === kind && told.action === action && told.id === id) return;
  }
  draft.seen = message.timeNano;
  const feed = step.write('feed');
  feed.push({
    at,
    kind,
    action,
    id,
    name: about.name ?? id,
    service: kind === 'service' ? id : about['service.id'] ?? '',
    node: kind === 'node' ? id : about['node.id'] ?? '',
    host: about.node ?? '',
    slot: Number(about.slot ?? 0),
    error: about.error ?? '',
    about,
  });
  if (feed.length > FEED) feed.splice(0, feed.length - FEED);
  draft.dirty.feed = true;
}

function taskEvent(step, id, action, about, message) {
  const { draft } = step;
  const old = draft.tasks.get(id);
  if (action === 'removed') {
    if (old) removeTask(step, old);
    return;
  }
  const at = message.timeNano / 1e6;
  const reached = REACHED[action] ?? old?.state ?? 'new';
  const ahead = !old || RANK.get(reached) > RANK.get(old.state);
  const task = {
    ...(old ?? {
      id,
      version: 0,
      service: about['service.id'] ?? '',
      slot: Number(about.slot ?? 0),
      desired: 'running',
      message: '',
      created: at,
    }),
    node: about['node.id'] ?? old?.node ?? '',
    image: about.image ? plainImage(about.image) : old?.image ?? '',
    state: ahead ? reached : old.state,
    since: ahead ? at : old.since,
    error: about.error ?? old?.error ?? '',
  };
  if (action === 'stopping') task.desired = 'shutdown';
  setTask(step, old, task);
}

function setTask(step, old, task) {
  const { draft } = step;
  if (old && same(old, task)) return;
  if (old && old.node !== task.node) step.bucket('byNode', old.node).delete(task.id);
  if (!old || old.node !== task.node) step.bucket('byNode', task.node).add(task.id);
  if (!old) step.bucket('byService', task.service).add(task.id);
  step.write('tasks').set(task.id, task);
  touch(draft.dirty, task);
  if (old) draft.dirty.nodes.add(old.node);
  else lookAgain(step, task);
}

function removeTask(step, old) {
  step.write('tasks').delete(old.id);
  step.bucket('byNode', old.node).delete(old.id);
  step.bucket('byService', old.service).delete(old.id);
  touch(step.draft.dirty, old);
  lookAgain(step, old);
}

/** A failed task is shown until another has its place: what comes or goes changes others. */
function lookAgain(step, task) {
  for (const id of step.draft.byService.get(task.service) ?? []) {
    const other = step.draft.tasks.get(id);
    if (other && phaseOf(other) === 'failed' && samePlace(other, task)) step.draft.dirty.tasks.add(id);
  }
}

function touch(dirty, task) {
  dirty.tasks.add(task.id);
  dirty.nodes.add(task.node);
  dirty.services.add(task.service);
}

function same(a, b) {
  for (const key in b) if (a[key] !== b[key]) return false;
  return true;
}

const READERS = { services: readService, nodes: readNode, networks: readNetwork };

function object(step, { kind, id, body }) {
  const { draft } = step;
  if (kind === 'task') {
    const old = draft.tasks.get(id);
    if (!body) {
      if (old) removeTask(step, old);
      return;
    }
    const task = readTask(body);
    // Whatever the events said since is newer than an answer of before.
    if (old && (task.version < old.version || RANK.get(task.state) < RANK.get(old.state))) return;
    setTask(step, old, task);
    return;
  }
  const table = `${kind}s`;
  if (!body) {
    drop(step, table, id);
    return;
  }
  const item = READERS[table](body);
  const old = draft[table].get(id);
  if (old && item.version < old.version) return;
  set(step, table, item);
}

function set(step, table, item) {
  step.write(table).set(item.id, item);
  step.draft.dirty[table].add(item.id);
  if (table === 'services') paint(step.write('hues'), item);
}

function drop(step, table, id) {
  if (step.draft[table].has(id)) step.write(table).delete(id);
  step.draft.dirty[table].add(id);
}

// From the API's shapes

const moment = (text) => (text ? Date.parse(text) || 0 : 0);

/** `name:tag` without the digest. */
function plainImage(image) {
  return (image ?? '').replace(/@sha256:[0-9a-f]+$/, '');
}

function readNode(view) {
  const { Spec: spec = {}, Description: about = {}, Status: status = {}, ManagerStatus: manager } = view;
  return {
    id: view.ID,
    version: view.Version?.Index ?? 0,
    name: spec.Name || about.Hostname || view.ID,
    role: spec.Role ?? 'worker',
    leader: manager?.Leader === true,
    reachability: manager?.Reachability ?? '',
    availability: spec.Availability ?? 'active',
    state: status.State ?? 'unknown',
    message: status.Message ?? '',
    address: status.Addr ?? '',
    cpus: (about.Resources?.NanoCPUs ?? 0) / 1e9,
    memory: about.Resources?.MemoryBytes ?? 0,
    platform: [about.Platform?.OS, about.Platform?.Architecture].filter(Boolean).join('/'),
    engine: about.Engine?.EngineVersion ?? '',
    labels: { ...about.Engine?.Labels, ...spec.Labels },
    created: moment(view.CreatedAt),
  };
}

function readService(view) {
  const { Spec: spec = {} } = view;
  const mode = Object.keys(spec.Mode ?? {})[0] ?? 'Replicated';
  const template = spec.TaskTemplate ?? {};
  const reserved = template.Resources?.Reservations ?? {};
  const update = view.UpdateStatus;
  return {
    id: view.ID,
    version: view.Version?.Index ?? 0,
    name: spec.Name ?? view.ID,
    stack: spec.Labels?.[STACK_LABEL] ?? '',
    labels: spec.Labels ?? {},
    image: plainImage(template.ContainerSpec?.Image),
    mode: { Replicated: 'replicated', Global: 'global', ReplicatedJob: 'replicated job', GlobalJob: 'global job' }[mode] ?? mode,
    replicas: spec.Mode?.Replicated?.Replicas ?? spec.Mode?.ReplicatedJob?.TotalCompletions ?? null,
    ports: (view.Endpoint?.Ports ?? []).map((port) => ({
      published: port.PublishedPort ?? 0,
      target: port.TargetPort ?? 0,
      protocol: port.Protocol ?? 'tcp',
      mode: port.PublishMode ?? 'ingress',
    })),
    networks: (template.Networks ?? spec.Networks ?? []).map((network) => network.Target),
    addresses: (view.Endpoint?.VirtualIPs ?? []).map((vip) => ({ network: vip.NetworkID, address: vip.Addr })),
    cpus: (reserved.NanoCPUs ?? 0) / 1e9,
    memory: reserved.MemoryBytes ?? 0,
    constraints: template.Placement?.Constraints ?? [],
    update: update ? {
      state: update.State ?? '',
      started: moment(update.StartedAt),
      completed: moment(update.CompletedAt),
      message: update.Message ?? '',
    } : null,
    created: moment(view.CreatedAt),
    updated: moment(view.UpdatedAt),
  };
}

function readTask(view) {
  const { Status: status = {} } = view;
  return {
    id: view.ID,
    version: view.Version?.Index ?? 0,
    service: view.ServiceID ?? '',
    node: view.NodeID ?? '',
    slot: view.Slot ?? 0,
    state: status.State ?? 'new',
    desired: view.DesiredState ?? 'running',
    image: plainImage(view.Spec?.ContainerSpec?.Image),
    message: status.Message ?? '',
    error: status.Err ?? '',
    since: moment(status.Timestamp),
    created: moment(view.CreatedAt),
  };
}

function readNetwork(view) {
  return {
    id: view.Id,
    version: 0,
    name: view.Name,
    driver: view.Driver,
    subnets: (view.IPAM?.Config ?? []).map((config) => config.Subnet),
    ingress: view.Ingress === true,
    internal: view.Internal === true,
    attachable: view.Attachable === true,
    encrypted: 'encrypted' in (view.Options ?? {}),
    stack: view.Labels?.[STACK_LABEL] ?? '',
    created: moment(view.Created),
  };
}

// What follows from the state

/** In one word, for the eye: waiting, starting, running, stopping, complete, stopped, failed. */
export function phaseOf(task) {
  const rank = RANK.get(task.state) ?? 0;
  if (task.state === 'failed' || task.state === 'rejected' || task.state === 'orphaned') return 'failed';
  if (task.state === 'complete') return 'complete';
  if (rank > RUNNING) return 'stopped';
  if ((RANK.get(task.desired) ?? 0) > RUNNING && task.desired !== 'complete') return 'stopping';
  if (rank === RUNNING) return 'running';
  return rank < RANK.get('assigned') ? 'waiting' : 'starting';
}

function samePlace(a, b) {
  return a.id !== b.id && a.service === b.service && a.slot === b.slot && (a.slot !== 0 || a.node === b.node);
}

/** Whether a task belongs on the picture: it lives, or failed and nothing has its place. */
export function onBoard(state, task) {
  const phase = phaseOf(task);
  if (phase !== 'failed') return phase !== 'complete' && phase !== 'stopped';
  for (const id of state.byService.get(task.service) ?? []) {
    const other = state.tasks.get(id);
    if (samePlace(task, other) && (other.created > task.created || RANK.get(other.state) <= RUNNING)) return false;
  }
  return (RANK.get(task.desired) ?? 0) <= RUNNING || !state.services.get(task.service);
}

/** `web.3`; a task of a global service has its host's name for a number. */
export function taskName(state, task) {
  const service = state.services.get(task.service)?.name ?? task.service.slice(0, 8);
  if (task.slot) return `${service}.${task.slot}`;
  return `${service}.${state.nodes.get(task.node)?.name ?? task.id.slice(0, 5)}`;
}

/** How many tasks of a service are wanted, run, start, fail and are complete. */
export function countService(state, id) {
  const count = { wanted: 0, running: 0, starting: 0, failed: 0, complete: 0 };
  const service = state.services.get(id);
  for (const taskId of state.byService.get(id) ?? []) {
    const task = state.tasks.get(taskId);
    const phase = phaseOf(task);
    const alive = phase === 'running' || phase === 'starting' || phase === 'waiting';
    if (alive) count.wanted++;
    if (phase === 'running') count.running++;
    else if (alive) count.starting++;
    else if (phase === 'complete') count.complete++;
    else if (phase === 'failed' && onBoard(state, task)) count.failed++;
  }
  if (service?.replicas != null) count.wanted = service.replicas;
  return count;
}

/** What runs on a node and what is reserved there. */
export function countNode(state, id) {
  const count = { tasks: 0, running: 0, cpus: 0, memory: 0 };
  for (const taskId of state.byNode.get(id) ?? []) {
    const task = state.tasks.get(taskId);
    const phase = phaseOf(task);
    if (phase === 'failed' || phase === 'complete' || phase === 'stopped') continue;
    const service = state.services.get(task.service);
    count.tasks++;
    if (phase === 'running') count.running++;
    count.cpus += service?.cpus ?? 0;
    count.memory += service?.memory ?? 0;
  }
  return count;
}

/** How far the service's update is: tasks of the new kind that run, of those wanted. */
export function progressOf(state, service) {
  const { update } = service;
  if (!update) return null;
  let fresh = 0;
  for (const id of state.byService.get(service.id) ?? []) {
    const task = state.tasks.get(id);
    if (task.created >= update.started && phaseOf(task) === 'running') fresh++;
  }
  const wanted = countService(state, service.id).wanted;
  const going = update.state === 'updating' || update.state === 'rollback_started';
  return { state: update.state, message: update.message, going, fresh: Math.min(fresh, wanted), wanted };
}

/** The services on a network, which names its networks by id or by name. */
export function servicesOn(state, network) {
  const on = [];
  for (const service of state.services.values()) {
    const ingress = network.ingress && service.ports.some((port) => port.mode === 'ingress');
    if (ingress || service.networks.some((target) => target === network.id || target === network.name)) on.push(service);
  }
  return on;
}

/** Ids of the nodes on which a network has tasks; the ingress network is on every one. */
export function nodesOn(state, network) {
  if (network.ingress) return [...state.nodes.keys()];
  const nodes = new Set();
  for (const service of servicesOn(state, network)) {
    for (const id of state.byService.get(service.id) ?? []) {
      const task = state.tasks.get(id);
      const phase = phaseOf(task);
      if (task.node && (phase === 'running' || phase === 'starting' || phase === 'stopping')) nodes.add(task.node);
    }
  }
  return [...nodes];
}

/**
 * A test for search words: every word has to be found in the task's name, image, phase, host,
 * id, ports or stack. Null when there are no words.
 */
export function matcher(state, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const cache = new Map();
  const ofService = (id) => {
    let hay = cache.get(id);
    if (hay === undefined) {
      const service = state.services.get(id);
      const networks = (service?.networks ?? []).map((target) => state.networks.get(target)?.name ?? target);
      const ports = (service?.ports ?? []).map((port) => `:${port.published}`);
      hay = service ? `${service.name} ${service.stack} ${ports.join(' ')} ${networks.join(' ')}`.toLowerCase() : '';
      cache.set(id, hay);
    }
    return hay;
  };
  const ofNode = (id) => (state.nodes.get(id)?.name ?? 'waiting').toLowerCase();
  return (task) => {
    const hay = `${taskName(state, task)} ${task.image} ${phaseOf(task)} ${task.id}`.toLowerCase();
    return words.every((word) => hay.includes(word) || ofService(task.service).includes(word) || ofNode(task.node).includes(word));
  };
}

/** Managers first, then by name, numbers in their order. */
const collator = new Intl.Collator('en', { numeric: true });
export function orderNodes(state) {
  return [...state.nodes.values()].sort((a, b) => Number(b.role === 'manager') - Number(a.role === 'manager') || collator.compare(a.name, b.name));
}

/** By stack, then name. */
export function orderServices(state) {
  return [...state.services.values()].sort((a, b) => collator.compare(a.stack, b.stack) || collator.compare(a.name, b.name));
}

export const compareNames = collator.compare;
