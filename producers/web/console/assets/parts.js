// What every view is made of: words, elements, the API. Whatever comes from elsewhere becomes text, never markup.
import {WORDS} from './words.js';

export const state = {session: null, board: null, language: 'en', source: null, meanings: {}, shown: null, away: '', signedOut: () => {}, show: () => {}};
export const $ = (id) => document.getElementById(id);
export const word = (name) => WORDS[state.language][name] ?? name;
export const number = (n) => new Intl.NumberFormat(state.language).format(n);
export const moment = (ms) => (ms ? new Date(ms).toLocaleString(state.language === 'zh' ? 'zh-CN' : 'en-GB') : '');
export const span = (s) => (s === null || s === undefined ? '' : s >= 3600 ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min` : s >= 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s} s`);

// -- drawing ----------------------------------------------------------------------------------

export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name === 'max' || name === 'checked' || name === 'disabled') made[name] = value;
    else if (name !== 'value' && value !== undefined && value !== false) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== ''));
  if ('value' in given) made.value = given.value; // after the options of a select
  return made;
}

export function table(id, heads, rows) {
  return el('div', {class: 'wide', tabindex: '0', role: 'group', 'aria-labelledby': id},
    el('table', {},
      el('thead', {}, el('tr', {}, heads.map((one) => el('th', {scope: 'col', class: one.startsWith('>') ? 'n' : undefined}, one.replace('>', ''))))),
      el('tbody', {}, rows.map((row) => el('tr', {}, row.map((cell, place) => el('td', {class: heads[place].startsWith('>') ? 'n' : undefined}, cell)))))));
}

export const section = (id, title, ...inside) => el('section', {'aria-labelledby': id}, el('h2', {id}, title), inside);

export function say(text) { $('said').textContent = text; }
export function alarm(text) { $('alarm').hidden = !text; $('alarm').textContent = text ?? ''; }

export function draw(...children) {
  const main = $('main');
  const focused = document.activeElement?.id;
  main.replaceChildren(...children);
  if (focused && focused !== 'main') $(focused)?.focus();
}

// -- the API ----------------------------------------------------------------------------------

export async function api(method, path, body, headers = {}) {
  const given = {...headers};
  if (state.session && method !== 'GET') given['X-CSRF-Token'] = state.session.csrf;
  const asItIs = body === undefined || body instanceof FormData || body instanceof Blob;
  if (!asItIs) given['Content-Type'] = 'application/json';
  const answer = await fetch(path, {method, headers: given, credentials: 'same-origin', body: asItIs ? body : JSON.stringify(body)});
  const text = await answer.text();
  const value = text && answer.headers.get('Content-Type')?.includes('json') ? JSON.parse(text) : null;
  if (answer.ok) return value;
  if (answer.status === 401 && state.session) state.signedOut();
  const faults = (value?.faults ?? []).map((one) => one.detail ?? one).join('; ');
  throw Object.assign(new Error([value?.detail ?? answer.statusText, faults].filter(Boolean).join(': ')), {status: answer.status, problem: value});
}

export async function attempt(work) {
  try { alarm(''); await work(); say(word('done')); } catch (error) { say(''); alarm(error.message); }
}

export function ask(question) {
  return new Promise((settled) => {
    const box = el('dialog', {'aria-label': question, onclose: () => { box.remove(); settled(box.returnValue === 'yes'); }},
      el('form', {method: 'dialog'}, el('p', {}, question),
        el('div', {class: 'row'}, el('button', {value: 'yes', class: 'main'}, word('yes')), el('button', {value: 'no'}, word('no')))));
    box.querySelectorAll('button').forEach((one) => one.setAttribute('value', one.classList.contains('main') ? 'yes' : 'no'));
    document.body.append(box);
    box.showModal();
  });
}

export const may = (scope) => state.session?.scopes.includes(scope);
