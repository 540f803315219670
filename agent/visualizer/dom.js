// Elements by hand: making them, and keeping a list of them in step with data.

/** An element; properties beginning with `on` are listeners, the others attributes. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value != null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/** The same for drawings. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Writes a text only where it differs: an equal one would cost a layout. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Writes an attribute only where it differs; null takes it away. */
export function attribute(element, name, value) {
  if (value == null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Brings the children of `parent` in step with `items`: elements stay with their keys, so that
 * focus, selection and animations survive.
 */
export function keyed(parent, items, key, create, update) {
  const old = parent.keyed ?? new Map();
  const next = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let element = old.get(id);
    if (!element) element = create(item);
    update(element, item);
    next.set(id, element);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const [id, element] of old) if (!next.has(id)) element.remove();
  parent.keyed = next;
}
