// Looks at one thing: a user's card; an app's limits, its permits by their end, and a forecast.
import {alarm, api, el, moment, number, section, span, state, table, word} from './parts.js';

const asked = {app: '', openid: '', channel: 'subscribe', template_id: '', audience: 'all'};

const pick = (name, options) => el('div', {class: 'field'}, el('label', {for: name}, word(name)),
  el('select', {id: name, value: asked[name], onchange: (event) => { asked[name] = event.target.value; }}, options.map((one) => el('option', {value: one}, one))));
const type = (name, given = {}) => el('div', {class: 'field'}, el('label', {for: name}, word(name)),
  el('input', {id: name, value: asked[name], spellcheck: 'false', autocomplete: 'off', oninput: (event) => { asked[name] = event.target.value.trim(); }, ...given}));

// a form whose answer stands below it
function asking(button, fields, look) {
  const answer = el('div', {'aria-live': 'polite'});
  const run = async (event) => {
    event?.preventDefault();
    try { alarm(''); answer.replaceChildren(...(await look()).flat(Infinity).filter(Boolean)); } catch (error) { alarm(error.message); }
  };
  return [el('form', {class: 'narrow', onsubmit: run}, fields, el('button', {class: 'main'}, word(button))), answer];
}

export function userView() {
  if (!state.session.apps.includes(asked.app)) [asked.app] = state.session.apps;
  return [el('h1', {}, word('user')), asking('show', [pick('app', state.session.apps), type('openid', {required: true})], async () => {
    const card = await api('GET', `/v1/apps/${asked.app}/users/${encodeURIComponent(asked.openid)}`);
    return [el('h2', {}, el('code', {}, card.openid)),
      card.suppressed.length ? el('p', {class: 'warn'}, `${word('suppressed')}: ${card.suppressed.join(', ')}`) : null,
      el('p', {class: 'soft'}, `${word('audience')}: ${card.audiences.join(', ') || '—'}${card.held ? ` · ${word('held')} ${number(card.held)}` : ''}`),
      section('balance', word('permits'), table('balance', [word('what'), word('template'), '>' + word('uses'), word('ends')],
        card.balance.map((one) => [one.kind, one.template_id, one.uses < 0 ? word('any_number') : number(one.uses), one.withdrawn_at_ms ? `${word('withdrawn')} ${moment(one.withdrawn_at_ms)}` : moment(one.expires_before_ms)]))),
      section('sends', word('sends_of_user'), table('sends', [word('created'), word('template'), word('state'), word('errcode'), word('meaning')],
        card.sends.map((one) => [moment(one.created_at_ms), one.template_id, word(one.outcome || one.state), one.errcode || '', state.meanings[one.errcode]?.meaning ?? ''])))];
  })];
}

export function appView(app) {
  asked.app = app;
  const limits = el('div', {}, '…');
  api('GET', `/v1/apps/${encodeURIComponent(app)}/limits`).then((found) => limits.replaceChildren(limitsOf(found)), (error) => alarm(error.message));
  return [el('p', {}, el('a', {href: '#/apps'}, word('back'))), el('h1', {}, app), section('limits', word('limits'), limits),
    section('forecast', word('forecast'), asking('show', [pick('channel', ['subscribe', 'template']), type('template_id'), type('audience', {required: true})], async () => {
      const query = new URLSearchParams({channel: asked.channel, template_id: asked.template_id, audience: asked.audience});
      const found = await api('GET', `/v1/apps/${encodeURIComponent(app)}/permits/forecast?${query}`);
      return [el('p', {class: 'soft'}, `${number(found.members)} ${word('users')} · ${number(found.uses)} ${word('uses')}`),
        bars(found.horizons.map((one) => [one.in_s ? `${word('in')} ${span(one.in_s)}` : word('now'), one.users]), word('reachable')),
        table('forecast', [word('when'), '>' + word('reachable'), '>' + word('ends_unsent')], found.horizons.map((one) => [one.in_s ? `${word('in')} ${span(one.in_s)}` : word('now'), number(one.users), number(one.expiring)]))];
    }))];
}

function limitsOf(found) {
  const quotas = Object.entries(found.quotas).map(([channel, one]) => [channel, one.limit ? number(one.limit) : '—', one.left === null ? '—' : number(one.left), one.error]);
  const rows = [['rate', found.rate ? `${number(found.rate)} ${word('a_second')}` : word('unlimited')],
    ['in_force', found.limit ? `${number(found.limit)} ${word('a_second')}` : word('all_of_it')], ['held_until', moment(found.held_until_ms) || '—'],
    ['daily_limit', found.daily_limit ? number(found.daily_limit) : word('unlimited')], ['sent_today', number(found.sent_today)], ['next_day', found.resets]];
  return el('div', {}, table('limits', [word('limit'), word('state')], rows.map(([name, text]) => [word(name), text])),
    quotas.length ? [el('h3', {id: 'quotas'}, word('quotas')), table('quotas', [word('channel'), '>' + word('limit'), '>' + word('left_today'), word('why')], quotas)] : null,
    found.diagnoses.map((one) => el('p', {class: 'warn'}, `${one.errcode} (${moment(one.at_ms)}): ${one.text}`)));
}

// A chart that is read without eyes as its numbers.
export function bars(rows, label) {
  const most = Math.max(1, ...rows.map(([, n]) => n));
  return el('div', {class: 'bars', role: 'group', 'aria-label': label}, rows.map(([name, n]) => [
    el('span', {}, name), el('meter', {min: '0', max: most, value: n, 'aria-label': name}), el('span', {class: 'n'}, number(n))]));
}
