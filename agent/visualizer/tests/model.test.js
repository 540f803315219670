import assert from 'node:assert/strict';
import { test } from 'node:test';

import { frames, splitLine } from '../logs.js';
import {
  HUES, countNode, countService, empty, matcher, nodesOn, onBoard, orderNodes, phaseOf, progressOf, reduce, servicesOn, taskName,
} from '../model.js';
import { Readings, rates } from '../tunnels.js';
import { ago, bytes, pathWords, rate, sentence, share } from '../words.js';

const node = (id, name, role = 'worker') => ({
  ID: id, Version: { Index: 5 }, CreatedAt: '2026-01-01T00:00:00Z',
  Spec: { Role: role, Availability: 'active' },
  Description: { Hostname: name, Resources: { NanoCPUs: 4e9, MemoryBytes: 8e9 } },
  Status: { State: 'ready', Addr: '192.0.2.1' },
  ...(role === 'manager' && { ManagerStatus: { Leader: true, Reachability: 'reachable' } }),
});
const service = (id, name, replicas, more = {}) => ({
  ID: id, Version: { Index: 5 }, CreatedAt: '2026-01-01T00:00:00Z',
  Spec: {
    Name: name, Labels: { 'com.docker.stack.namespace': 'shop' },
    Mode: replicas === null ? { Global: {} } : { Replicated: { Replicas: replicas } },
    TaskTemplate: {
      ContainerSpec: { Image: 'registry:5000/web:1@sha256:00ff' },
      Resources: { Reservations: { NanoCPUs: 5e8, MemoryBytes: 1e9 } },
      Networks: [{ Target: 'net1' }],
    },
  },
  Endpoint: { Ports: [{ Protocol: 'tcp', TargetPort: 80, PublishedPort: 8000, PublishMode: 'ingress' }] },
  ...more,
});
const task = (id, slot, on, state = 'running', more = {}) => ({
  ID: id, Version: { Index: 5 }, CreatedAt: '2026-01-01T00:00:01Z', ServiceID: 's1', Slot: slot,
  ...(on && { NodeID: on }), DesiredState: 'running', Spec: { ContainerSpec: { Image: 'registry:5000/web:1' } },
  Status: { State: state, Timestamp: '2026-01-01T00:00:02Z' }, ...more,
});
const network = (id, name, more = {}) => ({ Id: id, Name: name, Scope: 'swarm', Driver: 'overlay', IPAM: { Config: [{ Subnet: '10.0.1.0/24' }] }, ...more });

const lists = (more = {}) => ({
  type: 'lists',
  nodes: [node('n1', 'manager01', 'manager'), node('n2', 'worker01')],
  services: [service('s1', 'web', 2)],
  tasks: [task('t1', 1, 'n1'), task('t2', 2, 'n2')],
  networks: [network('net1', 'ch03'), network('ing', 'ingress', { Ingress: true }), { Id: 'b', Name: 'bridge', Scope: 'local' }],
  ...more,
});
let clock = 2e18;
const happens = (kind, action, id, about = {}, more = {}) => ({
  type: 'event',
  event: { Type: kind, Action: action, Actor: { ID: id, Attributes: about }, scope: 'swarm', timeNano: (clock += 1e6), ...more },
});
const of = (id, action, about = {}) => happens('task', action, id, { name: `web.1.${id}`, service: 'web', 'service.id': 's1', ...about });
const known = (more) => reduce(empty(), [lists(more)]);
const placed = (state) => Object.fromEntries([...state.byNode].map(([id, tasks]) => [id, [...tasks].sort()]));

/** The indexes say the same as the tasks. */
function sound(state) {
  const byNode = new Map();
  const byService = new Map();
  for (const one of state.tasks.values()) {
    byNode.set(one.node, (byNode.get(one.node) ?? new Set()).add(one.id));
    byService.set(one.service, (byService.get(one.service) ?? new Set()).add(one.id));
  }
  const filled = (index) => [...index].filter(([, set]) => set.size).map(([id, set]) => [id, [...set].sort()]).sort();
  assert.deepEqual(filled(state.byNode), filled(byNode));
  assert.deepEqual(filled(state.byService), filled(byService));
}

test('lists become a picture', () => {
  const state = known();
  assert.deepEqual(placed(state), { n1: ['t1'], n2: ['t2'] });
  assert.equal(state.services.get('s1').image, 'registry:5000/web:1');
  assert.equal(state.services.get('s1').stack, 'shop');
  assert.deepEqual([...state.networks.keys()], ['net1', 'ing']);
  assert.equal(taskName(state, state.tasks.get('t2')), 'web.2');
  assert.deepEqual(countService(state, 's1'), { wanted: 2, running: 2, starting: 0, failed: 0, complete: 0 });
  assert.deepEqual(countNode(state, 'n1'), { tasks: 1, running: 1, cpus: 0.5, memory: 1e9 });
  assert.ok(state.dirty.all);
  sound(state);
});

test('a task goes through its life by events alone', () => {
  let state = known();
  const seen = [];
  for (const [action, about] of [
    ['create', { image: 'web:2@sha256:aa', slot: '3' }], ['assigned', { 'node.id': 'n2', node: 'worker01' }], ['preparing', {}],
    ['starting', {}], ['running', {}], ['stopping', {}], ['shutdown', {}],
  ]) {
    state = reduce(state, [of('t3', action, about)]);
    seen.push(phaseOf(state.tasks.get('t3')));
    assert.deepEqual([...state.dirty.tasks], ['t3']);
    sound(state);
  }
  assert.deepEqual(seen, ['waiting', 'starting', 'starting', 'starting', 'running', 'stopping', 'stopped']);
  assert.equal(state.tasks.get('t3').image, 'web:2');
  assert.equal(state.tasks.get('t3').node, 'n2');
  assert.equal(state.tasks.get('t3').slot, 3);
  assert.equal(onBoard(state, state.tasks.get('t3')), false);
  state = reduce(state, [of('t3', 'removed')]);
  assert.ok(!state.tasks.has('t3'));
  sound(state);
});

test('the old state stays as it was', () => {
  const before = known();
  const picture = structuredClone({ ...before, dirty: null });
  reduce(before, [of('t1', 'failed', { error: 'exit 1' }), of('t9', 'create'), of('t2', 'removed'), happens('service', 'remove', 's1'), happens('node', 'update', 'n1', { 'state.new': 'down' })]);
  assert.deepEqual(structuredClone({ ...before, dirty: null }), picture);
});

test('events of before the lists take nothing back', () => {
  const old = [of('t1', 'create'), of('t1', 'assigned', { 'node.id': 'n1' }), of('t1', 'starting')];
  const state = reduce(known(), old);
  assert.equal(state.tasks.get('t1').state, 'running');
  // One that came and went before the lists were read comes and goes again.
  const gone = reduce(state, [of('t8', 'create'), of('t8', 'running', { 'node.id': 'n2' }), of('t8', 'removed')]);
  assert.deepEqual(placed(gone).n2, ['t2']);
  sound(gone);
});

test('a failed task is shown until another has its place', () => {
  let state = reduce(known(), [of('t1', 'failed', { error: 'task: non-zero exit (1)' })]);
  assert.ok(onBoard(state, state.tasks.get('t1')));
  assert.equal(countService(state, 's1').failed, 1);
  state = reduce(state, [of('t3', 'create', { slot: '1' })]);
  assert.ok(state.dirty.tasks.has('t1'), 'the failed one is looked at again');
  assert.equal(onBoard(state, state.tasks.get('t1')), false);
});

test('objects are asked for again, and an older answer changes nothing', () => {
  let state = reduce(known(), [happens('service', 'update', 's1', { name: 'web', 'updatestate.new': 'updating' })]);
  assert.deepEqual([...state.wanted], ['service/s1']);
  assert.equal(state.services.get('s1').update.state, 'updating');
  state = reduce(state, [{ type: 'asked', keys: ['service/s1'] }]);
  assert.equal(state.wanted.size, 0);
  state = reduce(state, [{ type: 'object', kind: 'service', id: 's1', body: service('s1', 'web', 6, { Version: { Index: 9 } }) }]);
  assert.equal(state.services.get('s1').replicas, 6);
  state = reduce(state, [{ type: 'object', kind: 'service', id: 's1', body: service('s1', 'web', 1, { Version: { Index: 8 } }) }]);
  assert.equal(state.services.get('s1').replicas, 6);
  state = reduce(state, [{ type: 'object', kind: 'task', id: 't1', body: task('t1', 1, 'n1', 'starting', { Version: { Index: 4 } }) }]);
  assert.equal(state.tasks.get('t1').state, 'running');
  state = reduce(state, [{ type: 'object', kind: 'service', id: 's1', body: null }]);
  assert.equal(state.services.size, 0);
  assert.ok(state.dirty.services.has('s1'));
});

test('an update that begins is at nothing, whatever was before', () => {
  let state = known({ services: [service('s1', 'web', 2, { UpdateStatus: { State: 'completed', StartedAt: '2025-01-01T00:00:00Z' } })] });
  state = reduce(state, [happens('service', 'update', 's1', { 'updatestate.new': 'updating' })]);
  assert.equal(progressOf(state, state.services.get('s1')).fresh, 0);
  state = reduce(state, [of('t3', 'create', { slot: '1' }), of('t3', 'running')]);
  assert.equal(progressOf(state, state.services.get('s1')).fresh, 1);
});

test('nodes change by events', () => {
  let state = reduce(known(), [happens('node', 'update', 'n2', { name: 'worker01', 'state.old': 'ready', 'state.new': 'down' })]);
  assert.equal(state.nodes.get('n2').state, 'down');
  assert.ok(state.wanted.has('node/n2'));
  state = reduce(state, [happens('node', 'update', 'n2', { 'availability.new': 'drain' }), happens('node', 'remove', 'n1')]);
  assert.equal(state.nodes.get('n2').availability, 'drain');
  assert.deepEqual([...state.nodes.keys()], ['n2']);
});

test('a gap asks for the lists, and the lists fill it', () => {
  let state = known();
  assert.equal(state.stale, false);
  state = reduce(state, [happens('daemon', 'missed', 'engine', { count: '7' }, { scope: 'local' })]);
  assert.ok(state.stale);
  state = reduce(state, [lists({ tasks: [] })]);
  assert.equal(state.stale, false);
  assert.equal(state.tasks.size, 0);
  sound(state);
});

test('the past is told once', () => {
  const past = of('t1', 'running');
  let state = reduce(known(), [past]);
  assert.equal(state.feed.length, 1);
  state = reduce(state, [past, of('t2', 'running')]);
  assert.equal(state.feed.length, 2);
  // One commit gives all of its events the same time.
  const time = (clock += 1e6);
  const together = ['t1', 't2', 't3'].map((id) => of(id, 'create')).map((one) => ({ ...one, event: { ...one.event, timeNano: time } }));
  state = reduce(reduce(state, together), together);
  assert.equal(state.feed.length, 5);
  state = reduce(state, Array.from({ length: 600 }, () => of('t2', 'running')));
  assert.equal(state.feed.length, 250);
  state = reduce(state, [happens('network', 'connect', 'net1', {}, { scope: 'local' })]);
  assert.equal(state.dirty.feed, false);
});

test('progress counts the tasks that came with the update', () => {
  let state = known({ services: [service('s1', 'web', 2, { UpdateStatus: { State: 'updating', StartedAt: '2026-02-01T00:00:00Z' } })] });
  assert.deepEqual(progressOf(state, state.services.get('s1')), { state: 'updating', message: '', going: true, fresh: 0, wanted: 2 });
  state = reduce(state, [of('t3', 'create', { slot: '1' }), of('t3', 'running', { 'node.id': 'n1' })]);
  assert.equal(progressOf(state, state.services.get('s1')).fresh, 1);
  assert.equal(progressOf(state, { ...state.services.get('s1'), update: null }), null);
});

test('networks have the hosts of their services', () => {
  const state = known();
  assert.deepEqual(servicesOn(state, state.networks.get('net1')).map((one) => one.name), ['web']);
  assert.deepEqual(nodesOn(state, state.networks.get('net1')), ['n1', 'n2']);
  assert.deepEqual(nodesOn(state, state.networks.get('ing')), ['n1', 'n2']);
  const moved = reduce(state, [of('t2', 'removed')]);
  assert.deepEqual(nodesOn(moved, moved.networks.get('net1')), ['n1']);
});

test('search finds by name, image, host, state, port and network', () => {
  const state = reduce(known(), [of('t2', 'stopping')]);
  const found = (words) => [...state.tasks.values()].filter(matcher(state, words)).map((one) => one.id);
  for (const [words, ids] of [
    ['web', ['t1', 't2']], ['WEB.1', ['t1']], ['worker01', ['t2']], ['stopping', ['t2']], [':8000', ['t1', 't2']],
    ['ch03 manager', ['t1']], ['registry:5000', ['t1', 't2']], ['shop', ['t1', 't2']], ['nothing', []],
  ]) assert.deepEqual(found(words), ids, words);
  assert.equal(matcher(state, '   '), null);
});

test('services have colours of their own, the same each time', () => {
  const many = Array.from({ length: HUES }, (_, place) => service(`s${place}`, `name${place}`, 1));
  const first = known({ services: many });
  assert.equal(new Set(first.hues.values()).size, HUES);
  assert.deepEqual(known({ services: [...many].reverse() }).hues, first.hues);
});

test('managers come first and numbers in their order', () => {
  const state = known({ nodes: [node('a', 'worker10'), node('b', 'worker2'), node('c', 'manager01', 'manager')] });
  assert.deepEqual(orderNodes(state).map((one) => one.name), ['manager01', 'worker2', 'worker10']);
});

test('any order of events leaves a sound state', () => {
  let seed = 1;
  const random = (below) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const actions = ['create', 'assigned', 'preparing', 'starting', 'running', 'stopping', 'shutdown', 'failed', 'complete', 'removed', 'unheard'];
  let state = known();
  for (let step = 0; step < 3000; step++) {
    const about = random(2) ? { 'node.id': `n${random(4)}` } : {};
    state = reduce(state, [of(`t${random(20)}`, actions[random(actions.length)], { slot: String(random(4)), ...about })]);
    if (random(200) === 0) state = reduce(state, [lists()]);
    for (const id of ['s1', 'none']) countService(state, id);
    for (const one of state.tasks.values()) onBoard(state, one);
  }
  sound(state);
});

test('frames are cut where they end, wherever the pieces were cut', () => {
  const frame = (stream, text) => {
    const data = new TextEncoder().encode(text);
    const whole = new Uint8Array(8 + data.length);
    whole[0] = stream;
    new DataView(whole.buffer).setUint32(4, data.length);
    whole.set(data, 8);
    return whole;
  };
  const all = new Uint8Array([...frame(1, 'one\n'), ...frame(2, 'zwei ü\n'), ...frame(1, '')]);
  for (let cut = 0; cut <= all.length; cut++) {
    const first = frames(all.slice(0, cut));
    const second = frames(new Uint8Array([...first.rest, ...all.slice(cut)]));
    const texts = [...first.found, ...second.found].map(({ stream, data }) => `${stream} ${new TextDecoder().decode(data)}`);
    assert.deepEqual(texts, ['1 one\n', '2 zwei ü\n', '1 '], `cut at ${cut}`);
    assert.equal(second.rest.length, 0);
  }
});

test('lines lose what was put before them', () => {
  const details = 'com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1';
  const { time, task: of_, text } = splitLine(`2026-01-01T00:00:00.000000000Z ${details} GET / 200\n`);
  assert.deepEqual([time, of_, text], [Date.UTC(2026, 0, 1), 't1', 'GET / 200']);
  assert.equal(splitLine('2026-01-01T00:00:00Z plain text').text, 'plain text');
  assert.equal(splitLine('').text, '');
});

test('rates are between two readings, and a counter that began anew is none', () => {
  const reading = (time, bytes) => ({ Time: time * 1e9, Peers: [{ NodeID: 'n2', TxBytes: bytes, RxBytes: 0, TxPackets: 0, RxPackets: 0 }] });
  assert.equal(rates(reading(1, 1000), reading(3, 5000)).get('n2').sent, 2000);
  assert.equal(rates(reading(1, 1000), reading(3, 10)).get('n2').sent, 0);
  assert.equal(rates({ Time: 0, Peers: [] }, reading(3, 10)).size, 0);
});

test('a tunnel says what passes and how long it takes', () => {
  const path = { State: 'fine', SmallSent: 25, SmallLost: 0, FullSent: 5, FullLost: 0, FullSize: 1450, MedianRTT: 312_000, WorstRTT: 9e6 };
  assert.equal(pathWords(undefined), '');
  assert.equal(pathWords(path), '0.31 ms round trip · no losses');
  assert.equal(pathWords({ ...path, SmallLost: 1, MedianRTT: 25e6 }), '25 ms round trip · 1 of 30 probes lost');
  assert.equal(pathWords({ ...path, State: 'small-only', FullLost: 5 }), '0.31 ms round trip · packets of 1450 bytes do not pass');
  assert.equal(pathWords({ ...path, State: 'unreachable', SmallLost: 25, FullLost: 5 }), 'no packet comes back');
  assert.equal(pathWords({ State: 'unknown', SmallSent: 0, SmallLost: 0, FullSent: 0, FullLost: 0, FullSize: 0, MedianRTT: 0, WorstRTT: 0 }), 'not measured yet');
  const reading = (time) => ({ Time: time * 1e9, Peers: [{ NodeID: 'n2', TxBytes: 0, RxBytes: 0, TxPackets: 0, RxPackets: 0, Path: path }] });
  assert.equal(rates(reading(1), reading(3)).get('n2').path, path);
});

test('a tunnel is one, whoever of its ends has told of it', () => {
  const told = (seconds, node, peers) => ({
    Time: seconds * 1e9,
    NodeID: node,
    Peers: Object.entries(peers).map(([peer, [sent, received, state]]) => ({ NodeID: peer, TxBytes: sent, RxBytes: received, TxPackets: 0, RxPackets: 0, Path: state && { State: state } })),
  });
  const readings = new Readings();
  readings.add(told(1, 'a', { b: [0, 0], c: [0, 0] }));
  readings.add(told(1, 'b', { a: [0, 0] }));
  assert.deepEqual(readings.tunnels(), []);
  readings.add(told(3, 'a', { b: [200, 80, 'fine'], c: [2000, 20, 'fine'] }));
  readings.add(told(3, 'b', { a: [100, 180, 'lossy'] }));
  // The second one has lost what the first one sent; the third has not told anything.
  const seen = () => readings.tunnels().map(({ from, to, sent, received, path }) => [from, to, sent, received, path.State]);
  assert.deepEqual(seen(), [['a', 'b', 100, 50, 'lossy'], ['a', 'c', 1000, 10, 'fine']]);
  readings.add(told(3, 'a', { b: [900, 80, 'fine'], c: [2000, 20, 'fine'] }));
  assert.deepEqual(seen()[0], ['a', 'b', 100, 50, 'lossy']);
  readings.add(told(14, 'a', { b: [200, 80, 'fine'] }));
  assert.deepEqual(seen(), [['a', 'b', 0, 0, 'fine']]);
});

test('words for people', () => {
  assert.equal(bytes(1536), '1.5 KiB');
  assert.equal(bytes(64 * 2 ** 30), '64 GiB');
  assert.equal(share(6 * 2 ** 30, 64 * 2 ** 30), '6/64 GiB');
  assert.equal(rate(1234), '1.2 kB/s');
  assert.equal(ago(0, 61_000), '1 min');
  const told = reduce(known(), [of('t1', 'failed', { node: 'worker01', error: 'exit 1' }), happens('service', 'update', 's1', { name: 'web', 'image.old': 'a/web:1', 'image.new': 'a/web:2' })]).feed;
  assert.deepEqual(told.map(sentence), ['web.1 failed on worker01: exit 1', 'service web: image web:1 → web:2']);
});
