// Brings the cluster to the page: the lists once, then the event stream, and the lists again after
// a gap. What is asked for and when is here; what it means is in model.js.

const KINDS = ['task', 'service', 'node', 'network', 'daemon'];
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5000;
/** Between two readings of all lists. */
const RESYNC_PAUSE = 2000;
/** Objects are asked for together this long after the first of them was told of. */
const LOOK_PAUSE = 200;
const AT_ONCE = 4;

/** One answer as JSON; throws with the daemon's own sentence. */
export async function ask(path, signal) {
  const response = await fetch(path, { signal, headers: { Accept: 'application/json' } });
  if (!response.ok) throw await problem(response);
  return response.json();
}

export async function problem(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).message ?? message;
  } catch {
    // A proxy in between has answered with something else.
  }
  const error = new Error(message);
  error.status = response.status;
  return error;
}

/** Calls `take` with the lines of each piece that arrives, until the stream ends. */
export async function lines(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n');
    rest = parts.pop();
    const whole = parts.filter(Boolean);
    if (whole.length) take(whole);
  }
}

const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

export class Feed {
  /** `dispatch` takes lists of actions for `reduce`. */
  constructor(dispatch) {
    this.dispatch = dispatch;
    this.controller = null;
    /** Events that wait for the lists. */
    this.held = null;
    this.since = '1';
    this.wanted = new Set();
    this.asking = 0;
    this.lastSync = 0;
  }

  /** Begins, or goes on after `stop`. */
  start() {
    if (this.controller) return;
    this.controller = new AbortController();
    this.run(this.controller.signal);
  }

  /** Ends all streams: a page that nobody sees costs the daemon nothing. */
  stop() {
    this.controller?.abort();
    this.controller = null;
  }

  async run(signal) {
    let pause = FIRST_PAUSE;
    while (!signal.aborted) {
      let note = 'the event stream ended';
      try {
        await this.follow(signal, () => {
          pause = FIRST_PAUSE;
        });
      } catch (error) {
        if (signal.aborted) return;
        // The token is not, or no longer, right: the door asks for it.
        if (error.status === 401) {
          location.reload();
          return;
        }
        note = error instanceof TypeError ? 'ovnd does not answer' : error.message;
      }
      if (signal.aborted) return;
      this.dispatch([{ type: 'link', phase: 'away', note }]);
      await sleep(pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  }

  async follow(signal, lives) {
    const filters = JSON.stringify({ type: KINDS });
    const path = `events?since=${this.since}&filters=${encodeURIComponent(filters)}`;
    const ends = new AbortController();
    const both = AbortSignal.any([signal, ends.signal]);
    const response = await fetch(path, { signal: both, headers: { Accept: 'application/jsonl' } });
    if (!response.ok) throw await problem(response);
    this.held = [];
    const listening = lines(response.body, (texts) => this.hear(texts));
    try {
      await Promise.race([listening, this.sync(both)]);
      lives();
      await listening;
    } finally {
      ends.abort();
      listening.catch(() => {});
    }
  }

  hear(texts) {
    const actions = texts.map((line) => ({ type: 'event', event: JSON.parse(line) }));
    const last = String(actions.at(-1).event.timeNano).padStart(10, '0');
    this.since = `${actions.at(-1).event.time}.${last.slice(-9)}`;
    if (this.held) this.held.push(...actions);
    else this.dispatch(actions);
  }

  /** Reads the lists; events wait so long, and count after them. */
  async sync(signal) {
    this.held ??= [];
    this.lastSync = performance.now();
    const scope = encodeURIComponent('{"scope":["swarm"]}');
    const [nodes, services, tasks, networks] = await Promise.all(
      ['nodes', 'services', 'tasks?brief=1', `networks?filters=${scope}`].map((path) => ask(path, signal)),
    );
    const held = this.held;
    this.held = null;
    this.dispatch([{ type: 'lists', nodes, services, tasks, networks }, ...held, { type: 'link', phase: 'live' }]);
  }

  /** Events were missed: the lists again, soon. */
  async resync() {
    const signal = this.controller?.signal;
    if (!signal || this.resyncing) return;
    this.resyncing = true;
    await sleep(Math.max(0, this.lastSync + RESYNC_PAUSE - performance.now()));
    this.resyncing = false;
    if (signal.aborted || this.held) return;
    try {
      await this.sync(signal);
    } catch {
      // The stream ends too when the daemon is away, and then everything begins anew.
      const held = this.held ?? [];
      this.held = null;
      this.dispatch(held);
    }
  }

  /** Asks for objects, `kind/id` each, of which events tell less than the page shows. */
  look(keys) {
    for (const key of keys) this.wanted.add(key);
    if (this.waiting || !this.wanted.size) return;
    this.waiting = setTimeout(() => {
      this.waiting = null;
      this.askMore();
    }, LOOK_PAUSE);
  }

  askMore() {
    while (this.asking < AT_ONCE && this.wanted.size) {
      const [key] = this.wanted;
      this.wanted.delete(key);
      this.asking++;
      this.askOne(key).finally(() => {
        this.asking--;
        this.askMore();
      });
    }
  }

  async askOne(key) {
    const [kind, id] = key.split('/');
    this.dispatch([{ type: 'asked', keys: [key] }]);
    try {
      const body = await ask(`${kind}s/${encodeURIComponent(id)}`, this.controller?.signal);
      this.dispatch([{ type: 'object', kind, id, body }]);
    } catch (error) {
      if (error.status === 404) this.dispatch([{ type: 'object', kind, id, body: null }]);
    }
  }
}
