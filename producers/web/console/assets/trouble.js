// Trouble: what stands still, and what waits for somebody's word.
import {alarm, api, ask, attempt, el, may, moment, number, section, state, table, word} from './parts.js';

const who = {}; // broadcast → some of its recipients in doubt, of those that were asked for
const letters = {}; // app → its dead letters, as they were read last
let visited = '';

async function readLetters() {
  await Promise.all(state.session.apps.map(async (app) => { letters[app] = await api('GET', `/v1/apps/${app}/webhooks?limit=20`); }));
}

export function troubleView(_, lively) {
  if (!lively || visited !== state.session.key) { visited = state.session.key; readLetters().then(() => state.show(true), (error) => alarm(error.message)); }
  const {broadcasts, apps, workers} = state.board;
  const stopped = broadcasts.filter((one) => one.state === 'paused' || one.state === 'aborted');
  const doubtful = broadcasts.filter((one) => one.outcomes.in_doubt);
  const aside = broadcasts.filter((one) => one.aside);
  const hindered = apps.filter((one) => one.hindered && one.running);
  const dead = Object.entries(letters).filter(([app, one]) => one.box.dead && state.session.apps.includes(app));
  const well = !(stopped.length || doubtful.length || aside.length || hindered.length || dead.length || workers.closed.length);
  return [el('h1', {}, word('trouble')), well ? el('p', {class: 'good'}, word('no_trouble')) : null,
    hindered.map((one) => el('p', {class: 'bad'}, `${one.app}: ${one.hindered}`)),
    stopped.length ? section('stopped', word('stopped'), el('ul', {class: 'list'}, stopped.map((one) => el('li', {class: 'item'}, linkTo(one), el('span', {class: 'warn'}, said(one)))))) : null,
    doubtful.length ? section('in-doubt', word('in_doubt_title'), el('p', {class: 'soft'}, word('in_doubt_help')), el('ul', {class: 'list'}, doubtful.map(doubt))) : null,
    aside.length ? section('aside', word('aside_title'), el('p', {class: 'soft'}, word('aside_help')), el('ul', {class: 'list'}, aside.map(setAside))) : null,
    dead.map(([app, one]) => section(`dead-${app}`, `${word('dead_letters')}: ${app} (${number(one.box.dead)})`,
      table(`dead-${app}`, [word('what'), word('broadcasts'), word('since'), word('why')], one.letters.map((letter) => [letter.type, letter.broadcast, moment(letter.died_at_ms), letter.why])),
      act(`replay-${app}`, 'replay', 'sure_replay_letters', async () => { await api('POST', `/v1/apps/${app}/webhooks/replay`, {}); await readLetters(); })))];
}

export const said = (one) => [one.waiting || one.reason, one.errcode ? `${one.errcode}: ${meaning(one.errcode)}` : ''].filter(Boolean).join(' · ');
export const meaning = (code) => state.meanings[code]?.meaning ?? '';
export const advice = (code) => state.meanings[code]?.advice ?? '';

const pathOf = (one) => `/v1/apps/${one.app}/broadcasts/${one.id}`;
const linkTo = (one) => el('div', {class: 'row'}, el('a', {href: `#/b/${one.id}`}, el('code', {}, one.id)), el('span', {}, `${one.app} · ${word(one.state)}`));

function act(id, name, question, work) {
  return may('send') ? el('button', {type: 'button', id, onclick: async () => { if (await ask(word(question))) { await attempt(work); state.show(true); } }}, word(name)) : null;
}

function doubt(one) {
  const decide = (outcome) => act(`${outcome}-${one.id}`, `take_${outcome}`, `sure_${outcome}`, () => api('POST', `${pathOf(one)}/doubts`, {outcome}));
  return el('li', {class: 'item'}, linkTo(one), el('b', {}, number(one.outcomes.in_doubt)),
    el('div', {class: 'row'}, el('button', {type: 'button', id: `who-${one.id}`, 'aria-expanded': String(one.id in who), onclick: () => attempt(async () => {
      if (one.id in who) delete who[one.id];
      else who[one.id] = (await api('GET', `${pathOf(one)}/doubts`)).doubts;
      state.show(true);
    })}, word('show_who')), decide('delivered'), decide('failed')),
    who[one.id] ? el('p', {}, who[one.id].map((found) => `${found.openid} (${moment(found.until_ms)})`).join(', ')) : null);
}

function setAside(one) {
  const settle = (name, replay) => act(`${name}-${one.id}`, name, `sure_${name}`, () => api('POST', `${pathOf(one)}/aside`, {replay}));
  return el('li', {class: 'item'}, linkTo(one), el('b', {}, number(one.aside)), el('div', {class: 'row'}, settle('replay', true), settle('to_doubt', false)));
}
