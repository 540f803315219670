// A simulated cluster behind the API's shapes, for measuring the page and for working on it.
//
// node tests/visualizer/simulated.mjs [--port 9081] [--hosts 100] [--tasks 5000] [--services 60] [--rate 50]
//
// `--rate` is how many tasks change a second: half of them end and half take their places, each
// through all of its states.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: flags } = parseArgs({
  options: {
    port: { type: 'string', default: '9081' },
    hosts: { type: 'string', default: '100' },
    tasks: { type: 'string', default: '5000' },
    services: { type: 'string', default: '60' },
    rate: { type: 'string', default: '50' },
  },
});
const number = (name) => Number(flags[name]);
const folder = new URL('../../agent/visualizer/', import.meta.url);

// The same cluster at each start.
let seed = 7;
const random = () => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 32;
};
const pick = (list) => list[Math.floor(random() * list.length)];
const letters = 'abcdefghijklmnopqrstuvwxyz0123456789';
const makeId = () => Array.from({ length: 25 }, () => letters[Math.floor(random() * 36)]).join('');
let index = 10;
const stamp = (time = Date.now()) => new Date(time).toISOString();

const networks = ['ingress', 'ch03', 'front', 'back', 'metrics'].map((name, number) => ({
  Id: makeId(), Name: name, Created: stamp(), Scope: 'swarm', Driver: 'overlay', Ingress: name === 'ingress',
  Attachable: true, Internal: false, Options: {}, Labels: {},
  IPAM: { Driver: 'default', Config: [{ Subnet: `10.0.${number}.0/24`, Gateway: `10.0.${number}.1` }] },
}));

const nodes = Array.from({ length: number('hosts') }, (_, place) => {
  const manager = place < Math.min(3, Math.ceil(number('hosts') / 4));
  const order = String(manager ? place + 1 : place).padStart(2, '0');
  return {
    ID: makeId(), Version: { Index: 10 }, CreatedAt: stamp(), UpdatedAt: stamp(),
    Spec: { Labels: {}, Role: manager ? 'manager' : 'worker', Availability: place === 7 ? 'drain' : 'active' },
    Description: {
      Hostname: `${manager ? 'manager' : 'worker'}${order}`, Platform: { Architecture: 'x86_64', OS: 'linux' },
      Resources: { NanoCPUs: 16e9, MemoryBytes: 64 * 2 ** 30 }, Engine: { EngineVersion: '0.1.0', Labels: {} },
    },
    Status: { State: place === 11 ? 'down' : 'ready', Addr: `192.0.2.${(place % 250) + 1}` },
    ...(manager && { ManagerStatus: { Leader: place === 0, Reachability: 'reachable', Addr: `192.0.2.${place + 1}:2377` } }),
  };
});
const usable = nodes.filter((node) => node.Status.State === 'ready' && node.Spec.Availability === 'active');

const NAMES = ['web', 'api', 'proxy', 'cache', 'queue', 'worker', 'search', 'mail', 'images', 'auth', 'billing', 'feed'];
const services = Array.from({ length: number('services') }, (_, place) => {
  const stack = ['shop', 'blog', 'data', 'ops', ''][place % 5];
  const name = (stack ? `${stack}_` : '') + NAMES[place % NAMES.length] + (place >= NAMES.length ? Math.floor(place / NAMES.length) + 1 : '');
  const ports = place % 3 ? [] : [{ Protocol: 'tcp', TargetPort: 80, PublishedPort: 8000 + place, PublishMode: 'ingress' }];
  return {
    ID: makeId(), Version: { Index: 10 }, CreatedAt: stamp(Date.now() - 1000 * (100 - place)), UpdatedAt: stamp(),
    Spec: {
      Name: name, Labels: stack ? { 'com.docker.stack.namespace': stack } : {},
      TaskTemplate: {
        ContainerSpec: { Image: `registry:5000/example/${NAMES[place % NAMES.length]}:1.${place}` },
        Resources: { Reservations: { NanoCPUs: 2e8, MemoryBytes: 2 ** 28 * 3 } },
        Networks: [{ Target: networks[1 + (place % 4)].Id }],
      },
      Mode: { Replicated: { Replicas: 0 } },
    },
    Endpoint: { Ports: ports, VirtualIPs: [{ NetworkID: networks[1 + (place % 4)].Id, Addr: `10.0.${1 + (place % 4)}.${place + 2}/24` }] },
    ...(place === 1 && { UpdateStatus: { State: 'updating', StartedAt: stamp(), Message: 'update in progress' } }),
  };
});

const tasks = new Map();
function makeTask(service, slot, state) {
  const node = state === 'new' ? null : pick(usable);
  const task = {
    ID: makeId(), Version: { Index: ++index }, CreatedAt: stamp(), UpdatedAt: stamp(), Labels: {},
    Spec: { ContainerSpec: { Image: service.Spec.TaskTemplate.ContainerSpec.Image } }, ServiceID: service.ID, Slot: slot,
    ...(node && { NodeID: node.ID }), Status: { Timestamp: stamp(), State: state }, DesiredState: 'running',
  };
  tasks.set(task.ID, task);
  return task;
}
for (let place = 0; place < number('tasks'); place++) {
  const service = services[Math.floor(random() ** 1.6 * services.length)];
  makeTask(service, ++service.Spec.Mode.Replicated.Replicas, 'running');
}

const listeners = new Set();
let told = 0;
function tell(kind, action, id, about) {
  const now = Date.now();
  const line = JSON.stringify({
    Type: kind, Action: action, Actor: { ID: id, Attributes: about }, scope: 'swarm',
    time: Math.floor(now / 1000), timeNano: now * 1e6 + (told++ % 1000) * 256,
  });
  for (const listener of listeners) listener.write(`${line}\n`);
}
const serviceById = new Map(services.map((service) => [service.ID, service]));
const nodeById = new Map(nodes.map((node) => [node.ID, node]));
function tellTask(task, action) {
  const service = serviceById.get(task.ServiceID);
  const node = nodeById.get(task.NodeID);
  tell('task', action, task.ID, {
    name: `${service.Spec.Name}.${task.Slot}.${task.ID}`, service: service.Spec.Name, 'service.id': service.ID,
    image: service.Spec.TaskTemplate.ContainerSpec.Image, slot: String(task.Slot),
    ...(node && { node: node.Description.Hostname, 'node.id': node.ID }), ...(task.Status.Err && { error: task.Status.Err }),
  });
}
function become(task, state, action = state) {
  task.Status = { ...task.Status, State: state, Timestamp: stamp() };
  task.Version.Index = ++index;
  tellTask(task, action);
}

/** One task ends and another takes its place. */
function replace() {
  const ids = [...tasks.keys()];
  let task;
  for (let tries = 0; tries < 20; tries++) {
    task = tasks.get(pick(ids));
    if (task.Status.State === 'running' && task.DesiredState === 'running') break;
  }
  const fails = random() < 0.1;
  const service = serviceById.get(task.ServiceID);
  task.DesiredState = 'shutdown';
  if (fails) {
    task.Status.Err = 'task: non-zero exit (1)';
    become(task, 'failed');
  } else tellTask(task, 'stopping');
  const next = makeTask(service, task.Slot, 'new');
  tellTask(next, 'create');
  const later = (delay, work) => setTimeout(work, delay + random() * 200);
  later(100, () => {
    next.NodeID = pick(usable).ID;
    become(next, 'assigned');
  });
  later(400, () => become(next, 'preparing'));
  later(900, () => become(next, 'starting'));
  later(1600, () => become(next, 'running'));
  later(1200, () => fails || become(task, 'shutdown'));
  later(2400, () => {
    tasks.delete(task.ID);
    tellTask(task, 'removed');
  });
}
if (number('rate') > 0) setInterval(replace, 2000 / number('rate'));

/** Tunnels of which a host tells, at most. */
const TOLD = 32;

const TYPES = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' };
function frame(text, stream) {
  const body = Buffer.from(text);
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(body.length, 4);
  return Buffer.concat([head, body]);
}
function follow(service, response) {
  let line = 0;
  const write = () => {
    const mine = [...tasks.values()].filter((task) => task.ServiceID === service.ID && task.NodeID);
    const task = pick(mine);
    if (!task) return;
    const details = `com.docker.swarm.node.id=${task.NodeID},com.docker.swarm.service.id=${service.ID},com.docker.swarm.task.id=${task.ID}`;
    const text = random() < 0.1 ? `warning: upstream was slow, ${line} ms` : `GET /items/${line} 200 ${Math.floor(random() * 40)} ms`;
    response.write(frame(`${stamp()} ${details} ${text}\n`, random() < 0.1 ? 2 : 1));
    line++;
  };
  for (let count = 0; count < 40; count++) write();
  const timer = setInterval(write, 300);
  response.on('close', () => clearInterval(timer));
}
function traffic(response) {
  const totals = new Map();
  const write = () => {
    const lines = nodes.map((from, place) => {
      const to = Array.from({ length: Math.min(TOLD, nodes.length - 1) }, (_, step) => nodes[(place + step + 1) % nodes.length]);
      const peers = to.map((node) => {
        const key = `${from.ID}/${node.ID}`;
        const before = totals.get(key) ?? { TxBytes: 0, RxBytes: 0, TxPackets: 0, RxPackets: 0 };
        const sent = Math.floor(random() ** 3 * 4e6);
        const next = {
          TxBytes: before.TxBytes + sent, RxBytes: before.RxBytes + Math.floor(sent * random()),
          TxPackets: before.TxPackets + Math.floor(sent / 900), RxPackets: before.RxPackets + Math.floor(sent / 1100),
        };
        totals.set(key, next);
        const lost = random() < 0.05 ? 4 : 0;
        const path = {
          State: lost ? 'lossy' : 'fine', SmallSent: 25, SmallLost: lost, FullSent: 5, FullLost: 0, FullSize: 1450,
          MedianRTT: Math.floor(2e5 + random() * 4e5), WorstRTT: 2e6,
        };
        return { NodeID: node.ID, ...next, Path: path };
      });
      return `${JSON.stringify({ Time: Date.now() * 1e6, NodeID: from.ID, Peers: peers })}\n`;
    });
    response.write(lines.join(''));
  };
  write();
  const timer = setInterval(write, 2000);
  response.on('close', () => clearInterval(timer));
}

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://simulated');
  const json = (value, status = 200) => {
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  const one = (list, key, what) => {
    const found = list.find((item) => item[key] === pathname.split('/')[2]);
    return found ? json(found) : json({ message: `${what} not found` }, 404);
  };
  if (pathname === '/nodes') return json(nodes);
  if (pathname === '/services') return json(services);
  if (pathname === '/networks') return json(networks);
  if (pathname === '/tasks') {
    const wanted = JSON.parse(searchParams.get('filters') ?? '{}').service;
    return json([...tasks.values()].filter((task) => !wanted || wanted.includes(task.ServiceID)));
  }
  if (pathname === '/version') return json({ Version: '0.1.0', ApiVersion: '1.53' });
  if (pathname === '/events') {
    response.writeHead(200, { 'Content-Type': 'application/jsonl' });
    response.flushHeaders();
    listeners.add(response);
    response.on('close', () => listeners.delete(response));
    return undefined;
  }
  if (pathname === '/overnet/traffic') {
    response.writeHead(200, { 'Content-Type': 'application/jsonl' });
    return traffic(response);
  }
  if (/^\/(services|tasks)\/[^/]+\/logs$/.test(pathname)) {
    const [, kind, id] = pathname.split('/');
    const service = serviceById.get(kind === 'tasks' ? tasks.get(id)?.ServiceID : id);
    if (!service) return json({ message: `${id} not found` }, 404);
    response.writeHead(200, { 'Content-Type': 'application/vnd.docker.multiplexed-stream' });
    return follow(service, response);
  }
  if (pathname.startsWith('/services/')) return one(services, 'ID', 'service');
  if (pathname.startsWith('/nodes/')) return one(nodes, 'ID', 'node');
  if (pathname.startsWith('/networks/')) return one(networks, 'Id', 'network');
  if (pathname.startsWith('/tasks/')) return one([...tasks.values()], 'ID', 'task');
  const name = pathname === '/' ? 'index.html' : pathname.slice(1);
  if (!/^[a-z]+\.(html|js|css|svg)$/.test(name)) return json({ message: 'page not found' }, 404);
  try {
    const text = await readFile(fileURLToPath(new URL(name, folder)));
    response.writeHead(200, { 'Content-Type': TYPES[name.split('.')[1]] });
    return response.end(text);
  } catch {
    return json({ message: 'page not found' }, 404);
  }
}).listen(number('port'), '127.0.0.1', function listening() {
  process.stdout.write(`http://127.0.0.1:${this.address().port}/\n`);
});
