// The live page: what is shown is made of the server's events; what is asked for goes by the API that
// /docs describes.
import {composerView} from './composer.js';
import {appView, bars, userView} from './looks.js';
import {$, alarm, api, ask, attempt, draw, el, may, moment, number, section, span, state, table, word} from './parts.js';
import {advice, meaning, said, troubleView} from './trouble.js';

// -- signing in -------------------------------------------------------------------------------

function drawSignIn() {
  const field = el('input', {id: 'key', type: 'password', autocomplete: 'off', required: true, spellcheck: 'false'});
  draw(el('h1', {}, word('sign_in')),
    el('form', {class: 'narrow', onsubmit: async (event) => {
      event.preventDefault();
      try { alarm(''); signedIn(await api('POST', '/console/session', {key: field.value})); } catch (error) { alarm(error.message); }
    }}, el('label', {for: 'key'}, word('api_key'), field), el('p', {class: 'soft'}, word('key_help')), el('button', {class: 'main'}, word('sign_in'))));
}

// what is said of the connection goes when that is back; what is said of a deed stays
function away(text) {
  if (text || state.away) alarm(text);
  state.away = text;
}

function signedIn(session) {
  state.session = session;
  $('sign-out').hidden = false;
  if (may('read')) api('GET', '/v1/errcodes').then(({errcodes}) => { state.meanings = Object.fromEntries(errcodes.map((one) => [one.errcode, one])); }, () => {});
  if (!may('read')) return show();
  state.source = new EventSource('/console/events');
  state.source.addEventListener('board', (event) => { away(''); state.board = JSON.parse(event.data); show(true); });
  state.source.addEventListener('away', (event) => away(`${word('away')}: ${JSON.parse(event.data).error}`));
  state.source.addEventListener('error', async () => {
    away(word('lost'));
    try { await api('GET', '/console/session'); } catch { /* 401 has signed out; the rest is tried again */ }
  });
  return show();
}

function signedOut() {
  state.source?.close();
  Object.assign(state, {session: null, board: null, source: null});
  $('sign-out').hidden = true;
  show();
}

// -- the views --------------------------------------------------------------------------------

const ORDER = ['delivered', 'no_permit', 'refused', 'invalid_user', 'bad_data', 'late', 'suppressed', 'kept', 'capped', 'cancelled', 'in_doubt', 'failed'];
const TONE = {running: 'good', paused: 'warn', aborted: 'bad', cancelled: 'warn', scheduled: 'soft', finished: 'soft'};
const expected = (one) => (one.complete ? one.total : Math.max(one.total, one.expected));
const outcomes = (one) => ORDER.filter((name) => one.outcomes[name]).map((name) => `${word(name)} ${number(one.outcomes[name])}`).join(' · ');

function progressOf(one) {
  const whole = expected(one);
  return el('progress', {max: Math.max(1, whole), value: whole ? one.settled : Number(one.complete), 'aria-label': `${number(one.settled)} ${word('of')} ${number(whole)}`});
}

function broadcastsView() {
  const board = state.board;
  const sums = [
    [board.workers.alive, word('workers')], [board.apps.reduce((n, one) => n + one.running, 0), word('running')],
    [Math.round(board.apps.reduce((n, one) => n + one.sending, 0)), `${word('sends')} ${word('a_second')}`],
    [board.apps.reduce((n, one) => n + one.uses.available, 0), word('permits')],
  ];
  return [el('h1', {}, word('broadcasts')),
    board.workers.alive ? null : el('p', {class: 'bad'}, word('no_worker')),
    el('ul', {class: 'cards'}, sums.map(([n, text]) => el('li', {}, el('b', {}, number(n)), text))),
    board.broadcasts.length ? null : el('p', {class: 'soft'}, word('none_yet')),
    el('ul', {class: 'list'}, board.broadcasts.map((one) => el('li', {class: 'item'},
      el('div', {class: 'row'}, el('a', {href: `#/b/${one.id}`, id: `b-${one.id}`}, el('code', {}, one.id)),
        el('span', {}, `${one.app} · ${one.audience || word('single')}`), el('b', {class: TONE[one.state]}, word(one.state))),
      progressOf(one),
      el('div', {class: 'row soft'}, el('span', {}, `${number(one.settled)} ${word('of')} ${number(expected(one))}`),
        el('span', {}, one.rate ? `${number(Math.round(one.rate))} ${word('a_second')}` : ''),
        el('span', {}, one.eta_s === null ? '' : `${word('left')} ${span(one.eta_s)}`)),
      el('div', {}, outcomes(one)),
      one.reason || one.waiting ? el('div', {class: 'warn'}, said(one)) : null))),
    board.left_out ? el('p', {class: 'soft'}, `${number(board.left_out)} ${word('left_out')}`) : null];
}

function moves(one) {
  const offered = {running: ['pause', 'cancel'], paused: ['resume', 'cancel'], scheduled: ['cancel']}[one.state] ?? [];
  if (!may('send')) return null;
  const path = `/v1/apps/${one.app}/broadcasts/${one.id}`;
  const rate = el('input', {id: 'rate', type: 'number', min: '0', step: 'any', size: '8', 'aria-label': word('rate')});
  return el('div', {class: 'row'}, offered.map((move) => el('button', {type: 'button', id: `do-${move}`, onclick: async () => {
    if (await ask(word(`sure_${move}`))) await attempt(() => api('POST', `${path}/${move}`));
  }}, word(move))),
  offered.length ? el('form', {class: 'row', onsubmit: (event) => { event.preventDefault(); attempt(() => api('PATCH', path, {rate: Number(rate.value)})); }},
    rate, el('button', {}, `${word('set')}: ${word('rate')}`)) : null);
}

function broadcastView(id) {
  const one = state.board.broadcasts.find((found) => found.id === id);
  if (!one) return [el('p', {}, el('a', {href: '#/'}, word('back'))), el('h1', {}, id), el('p', {class: 'soft'}, word('not_on_board'))];
  const facts = [['state', word(one.state)], ['app', one.app], ['audience', one.audience || word('single')], ['template', one.template_id],
    ['created', moment(one.created_at_ms)], ['starts', moment(one.starts_at_ms)], ['ends', moment(one.expires_at_ms)],
    ['queued', number(one.queued)], ['delayed', number(one.delayed)], ['in_flight', number(one.in_flight)], ['aside', number(one.aside)], ['why', one.reason], ['waits', one.waiting]];
  return [el('p', {}, el('a', {href: '#/'}, word('back'))), el('h1', {}, el('code', {}, one.id)), moves(one), progressOf(one),
    el('p', {class: 'soft'}, `${number(one.settled)} ${word('of')} ${number(expected(one))} ${one.rate ? `· ${number(Math.round(one.rate))} ${word('a_second')}` : ''} ${one.eta_s === null ? '' : `· ${word('left')} ${span(one.eta_s)}`}`),
    section('outcomes', word('outcomes'), table('outcomes', [word('state'), '>' + word('uses')], ORDER.filter((name) => one.outcomes[name]).map((name) => [word(name), number(one.outcomes[name])]))),
    Object.keys(one.errcodes).length ? section('errcodes', word('errcodes'), table('errcodes', [word('errcode'), '>' + word('answers'), word('meaning'), word('do')],
      Object.entries(one.errcodes).map(([code, n]) => [code, number(n), meaning(code), advice(code)]))) : null,
    section('facts', word('broadcasts'), table('facts', [word('what'), word('state')], facts.filter(([, value]) => value).map(([name, value]) => [word(name), String(value)])))];
}

function appsView() {
  return [el('h1', {}, word('apps')), state.board.apps.map((one) => section(`app-${one.app}`, one.app,
    one.hindered && one.running ? el('p', {class: 'bad'}, one.hindered) : null,
    el('p', {class: 'soft'}, `${word('running')} ${number(one.running)} · ${word('paused')} ${number(one.paused)} · ${word('scheduled')} ${number(one.scheduled)} · ${number(Math.round(one.sending))} ${word('a_second')} ${word('of')} ${one.rate ? number(one.rate) : word('unlimited')}`),
    el('p', {}, ['collected', 'available', 'held', 'spent', 'void', 'expired'].map((name) => `${word(name)} ${number(one.uses[name])}`).join(' · ')),
    bars(Object.entries(one.ending).map(([name, n]) => [word(`within_${name}`), n]), `${word('permits')} ${word('ending')}`),
    el('p', {}, el('a', {href: `#/app/${one.app}`, id: `look-${one.app}`}, `${word('limits')}, ${word('forecast')}: ${one.app}`))))];
}

function workersView() {
  const {alive, closed} = state.board.workers;
  return [el('h1', {}, word('workers')), el('p', {class: alive ? 'good' : 'bad'}, alive ? `${number(alive)} ${word('alive')}` : word('no_worker')),
    closed.length ? section('closed', word('closed'), table('closed', [word('workers'), word('app'), word('since'), word('why')],
      closed.map((one) => [one.worker, one.app, span(one.seconds), one.reason]))) : null];
}

// path → word, what draws it, whether each event draws it anew, the scope it needs
const VIEWS = {
  '': ['broadcasts', broadcastsView, true, 'read'],
  new: ['new', composerView, false, 'send'],
  apps: ['apps', appsView, true, 'read'],
  workers: ['workers', workersView, true, 'read'],
  trouble: ['trouble', troubleView, true, 'read'],
  user: ['user', userView, false, 'read'],
  app: ['', appView, false, 'read'], // by its link among the apps
};

function show(lively = false) {
  document.documentElement.lang = state.language === 'zh' ? 'zh-CN' : 'en';
  document.querySelectorAll('[data-word]').forEach((one) => { one.textContent = word(one.dataset.word); });
  $('language').textContent = state.language === 'zh' ? 'English' : '中文';
  $('language').lang = state.language === 'zh' ? 'en' : 'zh';
  $('nav').hidden = !state.session;
  if (!state.session) return drawSignIn();
  const [, name = '', id = ''] = location.hash.split('/');
  $('nav').replaceChildren(...Object.entries(VIEWS).filter(([, view]) => view[0] && may(view[3])).map(([path, [text]]) => el('a', {href: `#/${path}`, 'aria-current': path === name || (name === 'b' && !path) || (name === 'app' && path === 'apps') ? 'page' : undefined}, word(text))));
  if (!may('read')) return draw(el('p', {class: 'warn'}, word('needs_read')));
  if (!state.board) return draw(el('p', {class: 'soft'}, '…'));
  // what somebody is typing into, or has open, is not drawn anew under the hands
  if (lively && (document.activeElement?.matches('main input, main textarea, main select') || document.querySelector('dialog'))) return undefined;
  if (name === 'b') { state.shown = name; return draw(...broadcastView(id).filter(Boolean)); }
  const [, view, isLive] = VIEWS[name] ?? VIEWS[''];
  // a form is drawn when somebody comes to it, and changes by what is typed alone
  if (lively && !isLive && state.shown === name) return undefined;
  state.shown = name;
  return draw(...view(id, lively).flat(Infinity).filter(Boolean));
}

addEventListener('hashchange', () => { show(); $('main').focus(); });
$('language').addEventListener('click', () => { state.language = state.language === 'zh' ? 'en' : 'zh'; show(); });
$('sign-out').addEventListener('click', async () => { try { await api('DELETE', '/console/session'); } finally { signedOut(); } });

Object.assign(state, {signedOut, show});
state.language = navigator.language?.startsWith('zh') ? 'zh' : 'en';
try { signedIn(await api('GET', '/console/session')); } catch { show(); }
