// Numbers and times for people.

/** `1.5 GiB`. */
export function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : Math.round(value * 10) / 10} ${units[unit]}`;
}

/** `6/64 GiB`: both in the unit of the whole. */
export function share(part, whole) {
  const [, unit] = bytes(whole).split(' ');
  const size = 1024 ** ['B', 'KiB', 'MiB', 'GiB', 'TiB'].indexOf(unit);
  return `${Math.round((part / size) * 10) / 10}/${bytes(whole)}`;
}

/** `1.2 MB/s`, as networks count. */
export function rate(perSecond) {
  const units = ['B/s', 'kB/s', 'MB/s', 'GB/s'];
  let unit = 0;
  let value = perSecond;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : Math.round(value * 10) / 10} ${units[unit]}`;
}

/** `1.2k/s`. */
export function perSecond(count) {
  return count < 1000 ? `${Math.round(count)}/s` : `${Math.round(count / 100) / 10}k/s`;
}

/** `4.5` processors: at most two digits after the point. */
export function cpus(count) {
  return String(Math.round(count * 100) / 100);
}

/** `12 s`, `5 min`, `3 h`, `2 d` between two moments in milliseconds. */
export function ago(then, now) {
  const seconds = Math.max(0, Math.round((now - then) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

const TIME = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** What was measured of the way to another host. */
export function pathWords(path) {
  if (!path) return '';
  const sent = path.SmallSent + path.FullSent;
  const lost = path.SmallLost + path.FullLost;
  const loss = {
    unknown: 'not measured yet',
    unreachable: 'no packet comes back',
    'small-only': `packets of ${path.FullSize} bytes do not pass`,
  }[path.State] ?? (lost ? `${lost} of ${sent} probes lost` : 'no losses');
  if (!path.MedianRTT || path.State === 'unreachable') return loss;
  const milliseconds = path.MedianRTT / 1e6;
  return `${milliseconds.toFixed(milliseconds < 10 ? 2 : 0)} ms round trip · ${loss}`;
}

/** The clock's time of a moment. */
export function clock(moment) {
  return TIME.format(moment);
}

/** The last part of an image's name, with its tag. */
export function shortImage(image) {
  return image.slice(image.lastIndexOf('/') + 1);
}

/** `8000→80/tcp`. */
export function port(port) {
  const protocol = port.protocol === 'tcp' ? '' : `/${port.protocol}`;
  return `${port.published}→${port.target}${protocol}`;
}

/** `1 task`, `2 tasks`. */
export function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** A happening as a sentence. */
export function sentence(entry) {
  const { kind, action, name, about, host } = entry;
  if (kind === 'task') {
    const short = name.split('.').slice(0, 2).join('.');
    const on = host ? ` on ${host}` : '';
    switch (action) {
      case 'create': return `${short} is wanted`;
      case 'assigned': return `${short} goes to ${host || 'a host'}`;
      case 'preparing': return `${short} is prepared${on}`;
      case 'starting': return `${short} starts${on}`;
      case 'running': return `${short} runs${on}`;
      case 'stopping': return `${short} is asked to stop${on}`;
      case 'shutdown': return `${short} has stopped${on}`;
      case 'complete': return `${short} is complete${on}`;
      case 'failed': return `${short} failed${on}${entry.error ? `: ${entry.error}` : ''}`;
      case 'removed': return `${short} is gone`;
      default: return `${short}: ${action}${on}`;
    }
  }
  const details = Object.keys(about)
    .filter((key) => key.endsWith('.new'))
    .map((key) => {
      const field = key.slice(0, -4);
      const old = about[`${field}.old`];
      const shown = field === 'updatestate' ? 'update' : field;
      const value = (word) => (field === 'image' ? shortImage(word) : word.replaceAll('_', ' '));
      return old && field !== 'updatestate' ? `${shown} ${value(old)} → ${value(about[key])}` : `${shown} ${value(about[key])}`;
    });
  const verb = { create: 'is made', update: 'changed', remove: 'is removed' }[action] ?? action;
  return details.length ? `${kind} ${name}: ${details.join(', ')}` : `${kind} ${name} ${verb}`;
}
