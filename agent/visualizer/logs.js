// Lines of a service or a task, as they are written.

import { h } from './dom.js';
import { problem } from './feed.js';
import { clock } from './words.js';

/** Milliseconds between two drawings: to look where the reader is costs a layout. */
const PAUSE = 150;
/** Lines that are kept. */
const KEPT = 1000;

/**
 * Takes Docker's frames off the front of `buffer`: a byte for the stream, three of nothing, four of
 * length, the text. Gives the whole frames and what is left.
 */
export function frames(buffer) {
  const found = [];
  let at = 0;
  while (buffer.length - at >= 8) {
    const length = new DataView(buffer.buffer, buffer.byteOffset + at + 4, 4).getUint32(0);
    if (buffer.length - at - 8 < length) break;
    found.push({ stream: buffer[at], data: buffer.subarray(at + 8, at + 8 + length) });
    at += 8 + length;
  }
  return { found, rest: buffer.subarray(at) };
}

/** Splits `TIME k=v,k=v TEXT`. */
export function splitLine(line) {
  const match = /^(\S+) (?:(com\.docker\.\S+) )?([^]*)$/.exec(line.replace(/\r?\n$/, ''));
  if (!match) return { time: 0, task: '', text: line };
  const [, time, details = '', text] = match;
  return { time: Date.parse(time) || 0, task: /(?:^|,)com\.docker\.swarm\.task\.id=([^,]*)/.exec(details)?.[1] ?? '', text };
}

export class LogView {
  /** `nameOf` gives name and colour of a task, and whether it is known yet. */
  constructor(box, nameOf) {
    this.box = box;
    this.nameOf = nameOf;
    this.nameless = [];
    this.queue = [];
    this.controller = null;
  }

  /** Follows `path`, a service or a task. */
  open(path) {
    this.close();
    this.box.replaceChildren();
    this.controller = new AbortController();
    this.follow(path, this.controller.signal);
  }

  close() {
    this.controller?.abort();
    this.controller = null;
    this.queue = [];
    this.nameless = [];
  }

  /** A task's first lines may be here before the task: they get its name once it is known. */
  rename() {
    this.nameless = this.nameless.filter(({ place, task }) => {
      const { name, known } = this.nameOf(task);
      place.textContent = name;
      return !known && place.isConnected;
    });
  }

  async follow(path, signal) {
    try {
      const response = await fetch(`${path}/logs?follow=1&stdout=1&stderr=1&timestamps=1&details=1&tail=100`, { signal });
      if (!response.ok) throw await problem(response);
      const raw = (response.headers.get('content-type') ?? '').includes('raw-stream');
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let rest = new Uint8Array();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        if (raw) {
          for (const line of decoder.decode(value, { stream: true }).split('\n')) if (line) this.put(1, line);
          continue;
        }
        const buffer = new Uint8Array(rest.length + value.length);
        buffer.set(rest);
        buffer.set(value, rest.length);
        const taken = frames(buffer);
        rest = taken.rest;
        for (const { stream, data } of taken.found) this.put(stream, new TextDecoder().decode(data));
      }
      this.say('The log ends here.');
    } catch (error) {
      if (!signal.aborted) this.say(`No more lines: ${error.message}`);
    }
  }

  say(text) {
    this.queue.push({ note: text });
    this.schedule();
  }

  put(stream, line) {
    this.queue.push({ stream, line });
    if (this.queue.length > KEPT) this.queue.splice(0, this.queue.length - KEPT);
    this.schedule();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    setTimeout(() => {
      this.scheduled = false;
      this.draw();
    }, PAUSE);
  }

  draw() {
    const { box } = this;
    // Who has scrolled up is reading: only a reader at the end is taken along.
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    box.append(...this.queue.splice(0).map((entry) => this.row(entry)));
    for (let extra = box.childElementCount - KEPT; extra > 0; extra--) box.firstElementChild.remove();
    if (follows) box.scrollTop = box.scrollHeight;
  }

  row(entry) {
    if (entry.note) return h('p', { class: 'note' }, entry.note);
    const { time, task, text } = splitLine(entry.line);
    const { name, hue, known } = this.nameOf(task);
    const place = h('b', { class: `h${hue}` }, name);
    if (!known) this.nameless.push({ place, task });
    return h(
      'p',
      { class: entry.stream === 2 ? 'stderr' : null },
      h('time', {}, time ? clock(time) : ''),
      place,
      h('span', {}, text),
    );
  }
}
