'use strict';
// The sample mini-program: what its pages name is there, and a user's taps end at the service.

const {test} = require('node:test');
const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const {Phone, Service, ROOT} = require('./phone');

const {pages} = JSON.parse(fs.readFileSync(path.join(ROOT, 'app.json'), 'utf8'));
const PAGE = 'pages/check-in/check-in';

/** A page as WeChat makes it of what Page() was given. */
function shown(spec) {
  const page = {...spec, data: {...spec.data}, setData(changes) { Object.assign(this.data, changes); }};
  if (page.onShow) page.onShow();
  return page;
}

function launched() {
  const phone = new Phone();
  const service = new Service(phone);
  phone.boot();
  phone.run('app.js').onLaunch();
  const page = shown(phone.run(`${PAGE}.js`));
  phone.settle();
  return {phone, service, page};
}

test('every page has its four files', () => {
  for (const page of pages) {
    for (const kind of ['js', 'json', 'wxml', 'wxss']) {
      assert.ok(fs.existsSync(path.join(ROOT, `${page}.${kind}`)), `${page}.${kind}`);
    }
    JSON.parse(fs.readFileSync(path.join(ROOT, `${page}.json`), 'utf8'));
  }
});

test('each handler that the page names is there', () => {
  const {page} = launched();
  const wxml = fs.readFileSync(path.join(ROOT, `${PAGE}.wxml`), 'utf8').replace(/<!--[^]*?-->/g, '');
  const named = [...wxml.matchAll(/bind\w+="(\w+)"/g)].map((found) => found[1]);
  assert.deepStrictEqual(named, ['openItem', 'checkIn', 'remindMe']);
  for (const name of named) assert.strictEqual(typeof page[name], 'function', name);
  for (const form of wxml.match(/<form[^]*?<\/form>/g)) {
    assert.match(form, /^<form[^>]* report-submit/);
    assert.match(form, /<button[^>]* form-type="submit"/);
  }
});

test('a day of taps: items opened, checked in, reminded', () => {
  const {phone, service, page} = launched();
  service.templates = ['EVENT_TEMPLATE_ID'];
  phone.clock += 6 * 60 * 1000;
  page.onShow();
  phone.settle();
  page.openItem(Phone.submit('f1', {form: {id: 7}}));
  page.checkIn(Phone.submit('f2', {button: {day: 1}}));
  phone.settle();
  page.remindMe({type: 'tap', currentTarget: {dataset: {}}});
  phone.settle();
  assert.deepStrictEqual(phone.visited, ['/pages/item/item?id=7']);
  assert.strictEqual(phone.sent('/check-in')[0].data.day, 1);
  assert.deepStrictEqual(phone.popups, [['EVENT_TEMPLATE_ID', 'CHECK_IN_REMINDER_TEMPLATE_ID']]);
  assert.strictEqual(page.data.told, '好的');
  assert.deepStrictEqual(
    [...service.stored].map((stored) => stored.split(' ').slice(0, 2).join(' ')),
    ['f1', 'f2', 'EVENT_TEMPLATE_ID accept', 'CHECK_IN_REMINDER_TEMPLATE_ID accept'],
  );
});
